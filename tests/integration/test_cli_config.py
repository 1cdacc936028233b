"""`config` and `doctor`: with a real file, a real rclone and a real S3 server, without a daemon."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from mountd.cli.main import main
from mountd.cli.publish import _store
from mountd.publish.record import open_record
from mountd.rclone.binary import find
from mountd.settings.load import load
from mountd.settings.secret import is_secret, is_secret_option
from tests.support import hold_port
from tests.support.daemon import DEBIAN_RCLONE
from tests.support.s3 import RCLONE, RcloneS3

SECRET = "mountd-test-secret-0001"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    root = tmp_path_factory.mktemp("s3")
    (root / "data" / "cache_hub_v23").mkdir(parents=True)
    (root / "data" / "cache_hub_v23" / "gpt.pth").write_text("x")
    (root / "empty").mkdir()
    with RcloneS3(root) as server:
        yield server


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: a Unix socket's address has room for 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as directory:
        yield Path(directory)


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held.getsockname()[1]


@pytest.fixture
def file(tmp_path: Path, s3: RcloneS3, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEST_SECRET", s3.secret_access_key)
    monkeypatch.delenv("MOUNTD_CONFIG", raising=False)
    path = tmp_path / "mountd.yaml"
    remote = {
        "type": "s3",
        "provider": "Rclone",
        "endpoint": s3.endpoint,
        "access_key_id": s3.access_key_id,
        "secret_access_key": {"env": "TEST_SECRET"},
    }
    settings = {
        "remotes": {"store": remote},
        "mounts": {
            "storage": {"remote": "store:data", "path": f"{tmp_path}/mnt", "cache": {"dir": f"{tmp_path}/cache"}}
        },
        "models": {
            "hub": {"mount": "storage", "directory": "cache_hub_{version}", "link": f"{tmp_path}/hub", "version": "v23"}
        },
        "apps": {"webui": {"command": ["sleep", "1"], "needs": ["hub"]}},
        "rclone": {"binary": str(RCLONE)},
        "http": {"listen": f"127.0.0.1:{port}"},
        "state": f"{tmp_path}/state",
        "runtime": f"{tmp_path}/run",
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def change(file: Path, *keys: str, to: object) -> None:
    settings = yaml.safe_load(file.read_text())
    place = settings
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    file.write_text(yaml.safe_dump(settings))


def test_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "-c", str(file)]) == 0
    captured = capsys.readouterr()
    assert "is valid: 1 remote, 1 mount, 1 model, 1 app" in captured.out
    assert captured.err == ""  # rclone knows all of it


def test_check_finds_a_secret_that_is_not_there(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEST_SECRET")
    assert main(["config", "check", "-c", str(file), "-o", "json"]) == 2
    captured = capsys.readouterr()
    (problem,) = json.loads(captured.out)["problems"]
    assert problem["path"] == "remotes.store.secret_access_key"
    assert "TEST_SECRET" in captured.err


def test_check_shows_every_problem(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(file, "mounts", "storage", "profil", to="plain")
    change(file, "models", "hub", "link", to="relative")
    assert main(["config", "-c", str(file), "check"]) == 2
    err = capsys.readouterr().err
    assert "mounts.storage.profil" in err
    assert "models.hub.link" in err
    assert "config check" not in err  # it has just been typed
    assert "mountd config schema" in err


def test_check_looks_at_the_text_the_secrets_and_rclone_in_one_pass(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEST_SECRET")
    change(file, "models", "hub", "link", to="relative")
    change(file, "mounts", "storage", "options", to={"vfs-read-ahed": "1M"})
    change(file, "mounts", "storage", "path", to=str(tmp_path / "secrets"))
    change(file, "remotes", "store", "endpont", to="http://x")
    change(file, "remotes", "store", "sse_customer_key", to={"file": str(tmp_path / "secrets" / "key")})
    change(file, "remotes", "store", "of_tomorrow", to="1")
    change(file, "remotes", "other", to={"type": "swfit"})
    assert main(["config", "check", "-c", str(file), "-o", "json"]) == 2
    found = json.loads(capsys.readouterr().out)
    lines = {row.strip().partition(":")[0]: number for number, row in enumerate(file.read_text().splitlines(), 1)}
    assert {"vfs-read-ahed", "endpont"} <= {
        key for each in found["problems"] for key, line in lines.items() if each["line"] == line
    }
    texts = {each["path"]: each["text"] for each in found["problems"]}
    assert texts.keys() == {
        "models.hub.link",
        "mounts.storage.options.vfs-read-ahed",
        "remotes.store.endpont",
        "remotes.store.secret_access_key",
        "remotes.store.sse_customer_key.file",
    }
    assert "'vfs-read-ahead'" in texts["mounts.storage.options.vfs-read-ahed"]
    assert "TEST_SECRET" in texts["remotes.store.secret_access_key"]
    warned = {each["path"]: each["text"] for each in found["warnings"]}
    assert warned.keys() == {"remotes.store.of_tomorrow", "remotes.other.type"}
    assert "'swift'" in warned["remotes.other.type"]


def test_no_option_that_rclone_has_only_looks_like_a_secret() -> None:
    """What a mistyped name is taken for must not hit what is written right; passwords must all be known."""
    found = find(RCLONE)
    for backend, options in found.known_options.items():
        wrong = {name for name in options if is_secret_option(name, "x") != is_secret(name, "x")}
        missed = {name for name in found.password_options[backend] if not is_secret(name, "x")}
        assert (wrong, missed) == (set(), set()), backend


def test_check_without_rclone_says_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(file, "rclone", to={"binary": "/nonexistent/rclone"})
    assert main(["config", "check", "-c", str(file)]) == 0
    assert "warning: flags and options of rclone were not checked: " in capsys.readouterr().err


@pytest.fixture
def old_rclone() -> Path:
    """Debian 12's."""
    try:
        version = subprocess.run([DEBIAN_RCLONE, "version"], capture_output=True, text=True, check=True).stdout
    except OSError:
        version = ""
    if "rclone v1.60." not in version:
        pytest.skip(f"{DEBIAN_RCLONE} is not 1.60")
    return DEBIAN_RCLONE


def test_a_named_rclone_that_is_too_old_is_refused(
    file: Path, old_rclone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, "rclone", to={"binary": str(old_rclone)})
    assert main(["config", "check", "-c", str(file), "-o", "json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["path"] == "rclone.binary"
    assert problem["line"] > 1
    command = [sys.executable, "-m", "mountd", "run", "-c", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert str(old_rclone) in run.stderr
    main(["doctor", "-c", str(file), "-o", "json"])
    checks = {each["name"]: each["result"] for each in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["rclone"] == "fail"


def test_an_rclone_on_path_that_is_too_old_is_passed_over(
    file: Path, old_rclone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{old_rclone.parent}:{os.environ['PATH']}")
    change(file, "rclone", to={})
    assert main(["config", "check", "-c", str(file), "-o", "json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["path"] == "rclone.binary"
    assert str(old_rclone) in warning["text"]
    main(["doctor", "-c", str(file), "-o", "json"])
    (found,) = [each for each in json.loads(capsys.readouterr().out)["checks"] if each["name"] == "rclone"]
    assert found["result"] == "ok"
    assert str(old_rclone) in found["text"]


def test_a_secret_under_a_mistyped_name_is_refused_and_never_shown(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, "remotes", "store", "secret_acess_key", to=SECRET)
    assert main(["config", "check", "-c", str(file)]) == 2
    assert "remotes.store.secret_acess_key" in capsys.readouterr().err
    change(file, "allow_plain_secrets", to="true")
    for command in (["config", "show"], ["config", "render"], ["doctor"]):
        main([*command, "-c", str(file)])
        captured = capsys.readouterr()
        assert SECRET not in captured.out + captured.err
    assert "config: " in captured.out
    assert "secret_acess_key" in captured.out


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(tmp_path / "none.yaml"), "config", "show"]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_show_can_be_read_back(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "-c", str(file)]) == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown
    assert "Stopping takes at most" in shown
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert main(["config", "show", "-c", str(again), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == yaml.safe_load(shown)


def test_render_masks_secrets(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "render", "-c", str(file)]) == 0
    out = capsys.readouterr().out
    assert '"SecretAccessKey": "{env: TEST_SECRET}"' in out
    assert "credential_process = /bin/sh " in out
    assert "env_auth = true\n" in out
    assert "mount \\\n    store:data" in out
    assert SECRET not in out
    assert main(["config", "render", "-c", str(file), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["mounts"]["storage"]["argv"][1] == "mount"


def test_render_hides_secrets_that_stand_in_the_open(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(file, "allow_plain_secrets", to="true")
    change(file, "remotes", "store", "secret_access_key", to=SECRET)
    change(file, "mounts", "storage", "options", to={"header": f"Authorization: Bearer {SECRET}", "checkers": "8"})
    for form in ("table", "json"):
        assert main(["config", "render", "-c", str(file), "-o", form]) == 0
        captured = capsys.readouterr()
        assert "SecretAccessKey" in captured.out
        assert "--header" in captured.out
        assert SECRET not in captured.out + captured.err
        assert ("no effect on a mount" in captured.err) is (form == "table")
    assert any("no effect on a mount" in text for text in json.loads(captured.out)["mounts"]["storage"]["warnings"])


def test_publish_reads_only_the_secrets_that_it_needs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_UNSET", raising=False)
    other = {"type": "s3", "provider": "Other", "endpoint": "http://x", "secret_access_key": {"env": "TEST_UNSET"}}
    change(file, "remotes", "other", to=other)
    settings = load(file).settings

    async def make() -> tuple[str, str, int]:
        record = await open_record(tmp_path / "state", "d")
        try:
            store = await _store(settings, "storage", "cache_hub_v24", record)
            conf = record.private / "rclone.conf"
            return store.place, conf.read_text(), conf.stat().st_mode & 0o777
        finally:
            record.close()

    place, conf, mode = asyncio.run(make())
    assert (place, mode) == ("store:data/cache_hub_v24", 0o600)
    assert [line for line in conf.splitlines() if line.startswith("[")] == ["[store]"]


def test_schema(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    jsonschema.validate(yaml.safe_load(file.read_text()), json.loads(capsys.readouterr().out))


def examine(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "-c", str(file), "-o", "json"])
    out = capsys.readouterr().out
    assert SECRET not in out
    return code, {check["name"]: check for check in json.loads(out)["checks"]}


def test_doctor_of_what_is_well(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(tmp_path))
    _, checks = examine(file, capsys)
    wrong = {name: check for name, check in checks.items() if check["result"] == "fail"}
    assert not wrong.keys() - {"fuse", "fusermount", "allow_other"}  # which a machine for tests may lack
    assert checks["versions of hub"]["text"] == "v23"
    assert checks["daemon"]["result"] == "warn"
    assert sorted(os.listdir(tmp_path)) == before


def test_doctor_as_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "-c", str(file)])
    out = capsys.readouterr().out
    assert "ok    config: " in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("keys", "value", "check", "text"),
    [
        (("mounts", "storage", "remote"), "store:nope", "bucket of storage", "does not exist"),
        (("mounts", "storage", "remote"), "store:empty", "bucket of storage", "is empty"),
        (("remotes", "store", "secret_access_key"), {"file": "/nonexistent/key"}, "secrets", "/nonexistent/key"),
        (("remotes", "store", "access_key_id"), "SOMEBODYELSE", "bucket of storage", "refused the credentials"),
        (("remotes", "store", "endpoint"), "http://127.0.0.1:1", "bucket of storage", "cannot be reached: Get"),
        (("models", "hub", "version"), "v99", "versions of hub", "v99, wanted at first start, is not among v23"),
        (("models", "hub", "directory"), "other_{version}", "versions of hub", "there is none"),
        (("apps", "webui", "command"), ["no-such-program"], "app webui", "was not found"),
        (("apps", "webui", "user"), "no-such-user", "app webui", "there is no user"),
        (("mounts", "storage", "path"), "/etc", "mount point of storage", "is not empty"),
        (("models", "hub", "link"), "/etc/hostname", "link of hub", "is not a link"),
        (("state",), "/dev/null/x", "state", "is not a directory"),
        (("mounts", "storage", "options"), {"no-such-flag": "1"}, "mount storage", "has no flag"),
        (("mounts", "storage", "options"), {"checkers": "8"}, "mount storage", "no effect on a mount"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else str(value)[:20],
)
def test_doctor_names_what_is_wrong(
    file: Path, keys: tuple[str, ...], value: object, check: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, *keys, to=value)
    code, checks = examine(file, capsys)
    assert text in checks[check]["text"]
    assert checks[check]["hint"] or checks[check]["result"] == "warn" or check == "secrets"
    assert code == int(any(each["result"] == "fail" for each in checks.values()))


def test_doctor_looks_for_versions_in_the_bucket_of_the_model(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"remote": "store:empty", "path": f"{tmp_path}/other", "cache": {"dir": f"{tmp_path}/cache2"}}
    change(file, "mounts", "other", to=other)
    _, checks = examine(file, capsys)
    wanted = {"bucket of storage": "ok", "bucket of other": "warn", "versions of hub": "ok"}
    assert {name: checks[name]["result"] for name in wanted} == wanted


def test_doctor_leaves_a_credential_to_the_unit(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails nothing, and what is checked besides is checked."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    change(file, "remotes", "store", "secret_access_key", to={"credential": "s3-secret"})
    _, checks = examine(file, capsys)
    assert checks["credential s3-secret"]["result"] == "warn"
    assert (checks["bucket"]["result"], checks["secrets"]["result"]) == ("warn", "ok")
    assert checks["daemon"]["hint"] == f"start it: mountd run -c {file}", "no unit uses this file"


def test_doctor_sees_a_port_that_is_taken(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_port() as held:
        held.listen()
        change(file, "http", "listen", to=f"127.0.0.1:{held.getsockname()[1]}")
        code, checks = examine(file, capsys)
    assert (code, checks["http"]["result"]) == (1, "fail")


def test_doctor_of_a_broken_file_still_looks_at_the_machine(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(file, "state", to="relative")
    change(file, "runtime", to="relative")
    change(file, "remotes", "store", "secret_access_key", to={"file": "/nonexistent/key"})
    code, checks = examine(file, capsys)
    assert code == 1
    assert "state" in checks["config"]["text"]
    assert "fuse" in checks
    main(["doctor", "-c", str(file)])
    out = capsys.readouterr().out
    assert "/nonexistent/key" in out
    assert out.count("mountd config check -c") == 1  # what to do is the same for all
