"""A wanted version read from a real repository by the real git, whatever the repository and its server do."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.cli.examine_sources import wanted_versions
from mountd.errors import MountdError, Refused, Unavailable
from mountd.gitops import git_worker
from mountd.gitops.git import GitPlaces, GitSource
from mountd.gitops.wanted import NO_VERSION, REFUSED, UNREACHABLE
from mountd.process.orphans import INSTANCE
from mountd.settings.load import Places, parse
from mountd.settings.secret import SecretRef
from mountd.settings.sync import GitSettings
from tests.support.git_server import AUTHOR, GitRepository, GitServer
from tests.support.tls import make_certificate

pytestmark = pytest.mark.slow

PATH = "tts/version"


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "deploy.git")


@pytest.fixture
def server(repository: GitRepository) -> Iterator[GitServer]:
    with GitServer(repository) as found:
        yield found


Make = Callable[..., GitSource]


@pytest.fixture
def make(tmp_path: Path, server: GitServer) -> Make:
    """A source with these keys."""

    async def read(secrets: Mapping[str, SecretRef]) -> dict[str, str]:
        return {name: reference.read() for name, reference in secrets.items()}

    places = GitPlaces(tmp_path / "scratch", tmp_path / "private")
    places.private.mkdir()

    def build(**keys: Any) -> GitSource:
        settings = GitSettings.model_validate({"url": server.url, "path": PATH, **keys})
        return GitSource("hub", settings, read_secrets=read, places=places, marks={INSTANCE: f"t-{os.getpid()}"})

    return build


async def failure(source: GitSource) -> MountdError:
    found = await failure_of(source)
    assert found.hint
    return found


async def test_commit_author_and_message_come_with_the_version(repository: GitRepository, make: Make) -> None:
    commit = repository.commit({PATH: "v23\n"}, "Deliver v23: 更自然的声音\n\nMore of it.")
    found = await make().read()
    assert (found.version, found.source, found.revision) == ("v23", "git", commit)
    assert (found.author, found.message) == (AUTHOR, "Deliver v23: 更自然的声音")


async def test_the_value_at_a_key_of_yaml(repository: GitRepository, make: Make) -> None:
    repository.commit({"values.yaml": "tts:\n  version: 1.10\n"})
    assert (await make(path="values.yaml", key="tts.version").read()).version == "1.10"


async def test_a_commit_that_is_known_is_not_fetched_again(
    repository: GitRepository, server: GitServer, make: Make
) -> None:
    repository.commit({PATH: "v23"})
    source = make()
    first = await source.read()
    server.requests.clear()
    assert await source.read() is first
    assert len(server.requests) <= 2, server.requests


async def test_who_is_told_of_a_change_asks_for_it_at_once(
    repository: GitRepository, server: GitServer, make: Make
) -> None:
    repository.commit({PATH: "v23", "values.yaml": f"version: v23 # {'x' * 5000}"})
    source, large = make(), make(path="values.yaml", key="version")
    first = await source.read()
    server.requests.clear()
    assert await source.read(has_changed=True) is first
    repository.commit({PATH: "v24"})
    server.requests.clear()
    assert (await source.read(has_changed=True)).version == "v24"
    assert len(server.requests) <= 3, server.requests
    assert (await large.read()).version == "v23", "not among the smallest"
    repository.git("update-ref", "-d", "refs/heads/main")
    assert (await failure_of(source, has_changed=True)).code == NO_VERSION


async def failure_of(source: GitSource, **how: bool) -> MountdError:
    with pytest.raises(MountdError) as caught:
        await source.read(**how)
    return caught.value


async def test_history_that_was_rewritten_is_read_like_any_other(repository: GitRepository, make: Make) -> None:
    source = make()
    repository.commit({PATH: "v22"})
    repository.commit({PATH: "v23"})
    assert (await source.read()).version == "v23"
    rewritten = repository.commit({PATH: "v24"}, rewrite=True)
    found = await source.read()
    assert (found.version, found.revision) == ("v24", rewritten)
    repository.git("update-ref", "refs/heads/main", repository.commit({PATH: "v21"}, branch="other"))
    assert (await source.read()).version == "v21"


async def test_branches_and_tags(repository: GitRepository, make: Make) -> None:
    repository.commit({PATH: "v1"})
    repository.commit({PATH: "v2"}, branch="release/a")
    repository.commit({PATH: "v3"}, branch="feature/main")
    commit = repository.commit({PATH: "v4"}, branch="tagged")
    repository.git("-c", "user.name=x", "-c", "user.email=x", "tag", "-a", "-m", "x", "t4", commit)
    assert (await make().read()).version == "v1"
    assert (await make(ref="release/a").read()).version == "v2"
    tagged = make(ref="t4")
    found = await tagged.read()
    assert (found.version, found.revision) == ("v4", commit)
    assert await tagged.read() is found


@pytest.mark.parametrize(
    ("files", "mode", "keys"),
    [
        ({"other": "v23"}, "100644", {}),
        ({PATH: "v23"}, "100644", {"ref": "nowhere"}),
        ({PATH: "v23"}, "100644", {"path": "tts"}),
        ({PATH: "../../../../etc/hostname"}, "120000", {}),
        ({PATH: "latest"}, "100644", {}),
        ({PATH: b"\xff\xfe\0"}, "100644", {}),
        ({PATH: "x" * 200_000}, "100644", {}),
        ({PATH: "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "100644", {}),
    ],
)
async def test_what_names_no_version(
    repository: GitRepository, make: Make, files: dict[str, str], mode: str, keys: dict[str, str]
) -> None:
    repository.commit(files, mode=mode)
    found = await failure(make(**keys))
    assert isinstance(found, Refused)
    assert found.code == NO_VERSION


async def test_an_empty_repository(make: Make) -> None:
    assert (await failure(make())).code == NO_VERSION


async def test_a_repository_that_hangs_holds_its_deadline_and_leaves_nothing(
    repository: GitRepository, server: GitServer, make: Make, tmp_path: Path
) -> None:
    repository.commit({PATH: "v23"})
    server.hangs = True
    began = time.monotonic()
    assert (await failure(make(timeout="1s"))).code == UNREACHABLE
    assert time.monotonic() - began < 40
    mark = f"{INSTANCE}=t-{os.getpid()}".encode()
    async with asyncio.timeout(60):
        while marked(mark):
            await asyncio.sleep(0.05)
    assert not list((tmp_path / "scratch").iterdir())


def marked(mark: bytes) -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found.append(entry)
        except OSError:
            continue
    return found


async def test_a_server_that_is_down_and_comes_back(repository: GitRepository, server: GitServer, make: Make) -> None:
    repository.commit({PATH: "v23"})
    source = make()
    server.is_down = True
    assert (await failure(source)).code == UNREACHABLE
    server.is_down = False
    assert (await source.read()).version == "v23"


async def test_a_source_that_is_given_up_while_it_reads_takes_nothing_from_the_next_one(
    repository: GitRepository, server: GitServer, make: Make
) -> None:
    """As a reload does, when a token has changed."""
    repository.commit({PATH: "v23"})
    for _ in range(3):
        server.requests.clear()
        server.hangs = True
        reading = asyncio.create_task(make().read())
        async with asyncio.timeout(60):
            while not server.requests:
                await asyncio.sleep(0.01)
        server.hangs = False
        reading.cancel()
        assert (await make().read()).version == "v23"
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_nobody_listens(make: Make) -> None:
    assert (await failure(make(url="http://127.0.0.1:1/x.git"))).code == UNREACHABLE


async def test_a_huge_repository_costs_one_commit_and_one_file(
    repository: GitRepository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = os.urandom(3 << 20)
    small_files = {f"source/{number}": large[number * 1500 : number * 1500 + 1500] for number in range(1800)}
    repository.commit(small_files | {f"weights/{number}": large[number:] for number in range(3)} | {PATH: "v23"})
    small = tmp_path / "small_worker.py"  # so that less than 9 MiB is too much
    text = Path(git_worker.__file__).read_text()
    small.write_text(text.replace("MAX_PACK_BYTES = 64 * 1024 * 1024", "MAX_PACK_BYTES = 2 * 1024 * 1024"))
    monkeypatch.setattr(git_worker, "__file__", str(small))
    assert (await make().read()).version == "v23"
    # A server that does not filter: it sends all of it, and git may not write it.
    repository.git("config", "uploadpack.allowFilter", "false")
    found = await failure(make())
    assert (type(found), found.code) == (Unavailable, UNREACHABLE)
    assert "MiB" in found.text
    assert not list((tmp_path / "scratch").iterdir())


async def test_a_git_that_takes_all_memory_ends_and_the_next_try_reads(
    repository: GitRepository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({PATH: "v23"})
    greedy = tmp_path / "bin/git"
    greedy.parent.mkdir()
    greedy.write_text(f"#!{sys.executable}\nprint(len(bytearray({2 * git_worker.MAX_MEMORY_BYTES})))\n")
    greedy.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{greedy.parent}:{path}")
    source = make()
    error = await failure(source)
    assert (error.code, "MemoryError" in error.text) == (UNREACHABLE, True)
    monkeypatch.setenv("PATH", path)
    assert (await source.read()).version == "v23"


async def test_a_token_opens_it_and_is_seen_nowhere(
    repository: GitRepository, server: GitServer, make: Make, tmp_path: Path
) -> None:
    repository.commit({PATH: "v23"})
    token = "t0k3n-s3cr3t"
    server.login = f"x-access-token:{token}"
    (tmp_path / "token").write_text(f"{token}\n")
    assert (await failure(make())).code == REFUSED
    assert (await make(token={"file": str(tmp_path / "token")}).read()).version == "v23"
    (tmp_path / "token").write_text("wrong\n")
    found = await failure(make(token={"file": str(tmp_path / "token")}))
    assert found.code == REFUSED
    assert "wrong" not in found.text + found.hint
    (tmp_path / "token").unlink()
    assert (await failure(make(token={"file": str(tmp_path / "token")}))).code == "secret-missing"


# What ssh would run on the server; it records how it was called, and the key.
SSH = """\
#!/bin/sh
printf '%s\\n' "$@" > '{record}'
while [ $# -gt 1 ]; do [ "$1" = -i ] && {{ stat -c %a "$2"; cat "$2"; }} >> '{record}'; shift; done
exec sh -c "$1"
"""


async def test_over_ssh_the_key_is_in_a_private_file_and_soon_gone(
    repository: GitRepository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({PATH: "v23"})
    record, program = tmp_path / "record", tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(record=record))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    url = f"ssh://git@git.example.com{repository.directory}"
    found = await make(url=url, ssh_key={"file": str(tmp_path / "key")}, known_hosts="/etc/kh").read()
    assert found.version == "v23"
    said = record.read_text()
    assert "git@git.example.com\n" in said
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/etc/kh"} <= set(said.split("\n"))
    assert said.endswith("600\n" + (tmp_path / "key").read_text())
    assert not list((tmp_path / "private").iterdir())


async def test_over_https_the_certificate_is_checked(
    repository: GitRepository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({PATH: "v23"})
    pair = await asyncio.to_thread(make_certificate, tmp_path, "git")
    with GitServer(repository, pair=pair) as server:
        found = await failure(make(url=server.url))
        assert (found.code, "certificate" in found.text) == (UNREACHABLE, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        assert (await make(url=server.url).read()).version == "v23"


async def test_a_token_goes_to_no_other_server(
    repository: GitRepository, server: GitServer, make: Make, tmp_path: Path
) -> None:
    repository.commit({PATH: "v23"})
    (tmp_path / "token").write_text("t0k3n")
    server.redirects = True
    assert (await failure(make(token={"file": str(tmp_path / "token")}))).code == UNREACHABLE


async def test_no_hook_filter_or_configuration_of_a_user_runs(
    repository: GitRepository, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\tfsmonitor = touch {ran}\n\tsshCommand = touch {ran}\n"
        f'[credential]\n\thelper = !touch {ran}\n[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {ran}")
    repository.commit(
        {
            ".gitattributes": f"{PATH} filter=evil\n",
            ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c true\n',
            PATH: "v23",
        }
    )
    assert (await make().read()).version == "v23"
    assert not ran.exists()


async def test_reading_is_quick(repository: GitRepository, make: Make) -> None:
    """A webhook is to be answered by a live version within 2 s: most of that is for the switch."""
    repository.commit({PATH: "v23"})
    source = make()
    await source.read()
    repository.commit({PATH: "v24"})
    began = time.monotonic()
    assert (await source.read()).version == "v24"
    assert time.monotonic() - began < 20, "on a busy machine"


def test_doctor_says_what_each_source_wants(repository: GitRepository, server: GitServer, tmp_path: Path) -> None:
    commit = repository.commit({PATH: "v23"})
    wanted = tmp_path / "wanted"
    model = {"mount": "storage", "directory": "hub_{version}"}
    git = {"url": server.url, "path": PATH}
    config = {
        "remotes": {"store": {"type": "s3", "provider": "AWS"}},
        "mounts": {"storage": {"remote": "store:bucket", "path": "/mnt/storage"}},
        "models": {
            "hub": {**model, "link": "/srv/hub", "desired": {"git": git}},
            "voices": {**model, "link": "/srv/voices", "desired": {"file": str(wanted)}},
            "fixed": {**model, "link": "/srv/fixed", "version": "v1"},
        },
    }
    places = Places(Path("/var/lib/x"), Path("/var/cache/x"), Path("/run/x"))
    settings = parse(yaml.safe_dump(config), "mountd.yaml", places).settings
    found = {each.name: each for each in asyncio.run(wanted_versions(settings))}
    assert [(name, each.result) for name, each in found.items()] == [
        ("wanted version of hub", "ok"),
        ("wanted version of voices", "fail"),
    ]
    assert commit[:10] in found["wanted version of hub"].text
    wanted.write_text("v22\n")
    assert [each.result for each in asyncio.run(wanted_versions(settings))] == ["ok", "ok"]
