"""`mountd init`: by options and by answers at a terminal; what it writes, keeps, refuses to write, and takes back."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from mountd.cli.main import main
from mountd.install.carried import SHARE
from mountd.settings.load import load
from tests.support.s3 import RCLONE, MotoS3
from tests.support.wait import until

Cli = Callable[..., tuple[int, str, str]]
GIVEN = ("--yes", "--store", "aliyun-oss", "--bucket", "hub", "--region", "cn-hangzhou")
RESULTS = ("--results", "/srv/tts/outputs", "--results-to", "tts-results/outputs")
SECRET = "mountd-test-secret-0001"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "mountd.yaml"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    path = tmp_path / "pair"
    path.write_text(f"LTAI5tTEST\n{SECRET}\n")
    return path


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


def test_by_options_and_accepted_by_check(file: Path, pair: Path, cli: Cli) -> None:
    code, out, err = cli("init", *GIVEN, "--model-version", "v23", "--keys", pair, "-c", file)
    assert (code, err) == (0, "")
    assert SECRET not in out + file.read_text()
    assert modes(file.parent) == {"mountd.yaml": 0o644, "access_key_id": 0o600, "secret_key": 0o600}
    code, out, err = cli("config", "check", "-c", file, "-o", "json")
    assert (code, json.loads(out)["problems"], json.loads(out)["warnings"]) == (0, [], [])
    code, out, _ = cli("config", "render", "-c", file)
    assert code == 0
    assert "endpoint = https://oss-cn-hangzhou.aliyuncs.com" in out
    assert SECRET not in out
    settings = load(file).settings
    assert (settings.models["cache_hub"].version, settings.mounts["storage"].remote) == ("v23", "store:hub")


def test_what_it_writes_reaches_a_real_store(file: Path, pair: Path, tmp_path: Path, cli: Cli) -> None:
    words = ("--app-directory", tmp_path, "--mount-point", tmp_path / "m", "--app", "none", "--keys", pair)
    with MotoS3() as server, TemporaryDirectory(prefix="mountd-") as short:  # for the path of a socket
        server.create_bucket("hub")
        server.put("hub", "tts/model_v1/MANIFEST.json", b"{}")
        given = ("--yes", "--store", "minio", "--endpoint", server.endpoint, "--bucket", "hub/tts")
        assert cli("init", *given, *words, "-c", file)[0] == 0
        with file.open("a") as written:
            written.write(f"state: {tmp_path}/state\nruntime: {short}\nrclone: {{binary: {RCLONE}}}\n")
        assert cli("config", "check", "-c", file)[0] == 0
        checks = {each["name"]: each for each in json.loads(cli("doctor", "-c", file, "-o", "json")[1])["checks"]}
    assert checks["style of storage"]["text"] == "path style: 127.0.0.1/hub"
    wanted = ("clock of store", "signature of storage", "bucket of storage", "versions of model", "read of storage")
    assert {checks[name]["result"] for name in wanted} == {"ok"}


@pytest.mark.parametrize(
    ("words", "place", "value"),
    [
        (("--network", "internal"), ("remotes", "store", "network"), "internal"),
        (("--directory", "models/{version}"), ("models", "cache_hub", "directory"), "models/{version}"),
        (("--app-directory", "/opt/tts"), ("models", "cache_hub", "link"), "/opt/tts/cache_hub"),
        (("--app-command", "./run --port '7 8'"), ("apps", "webui", "command"), ["./run", "--port", "7 8"]),
        (("--user", "speech"), ("apps", "webui", "user"), "speech"),
        (RESULTS, ("outbox", "results", "directory"), "/srv/tts/outputs"),
        (RESULTS, ("outbox", "results", "remote"), "store:tts-results/outputs"),
        (("--mount-point", "/data/hub"), ("mounts", "storage", "path"), "/data/hub"),
        (("--app", "glm-tts"), ("models", "ckpt", "directory"), "ckpt_{version}"),
        (("--endpoint", "https://models.example.com"), ("remotes", "store", "endpoint"), "https://models.example.com"),
        (("--secrets", "env"), ("remotes", "store", "access_key_id"), {"env": "MOUNTD_ACCESS_KEY_ID"}),
    ],
    ids=str,
)
def test_each_option(file: Path, cli: Cli, words: tuple[str, ...], place: tuple[str, ...], value: object) -> None:
    code, _, err = cli("init", *GIVEN, *words, "-c", file)
    assert code == 0, err
    found = yaml.safe_load(file.read_text())
    for key in place:
        found = found[key]
    assert found == value


@pytest.mark.parametrize("words", [(), ("--results", "")], ids=str)
def test_without_results_there_is_no_outbox(file: Path, cli: Cli, words: tuple[str, ...]) -> None:
    assert cli("init", *GIVEN, *words, "-c", file)[0] == 0
    assert load(file).settings.outbox == {}


def test_results_are_accepted_by_check_and_their_bucket_is_no_hub(file: Path, pair: Path, cli: Cli) -> None:
    assert cli("init", *GIVEN, *RESULTS, "--keys", pair, "-c", file)[::2] == (0, "")
    code, out, _ = cli("config", "check", "-c", file, "-o", "json")
    assert (code, json.loads(out)["problems"], json.loads(out)["warnings"]) == (0, [], [])
    code, _, err = cli("init", *GIVEN, *RESULTS, "--results-to", "hub/outputs", "--dry-run", "-c", file)
    assert (code, "warning" in err) == (0, True)


def test_what_is_left_to_do(file: Path, cli: Cli) -> None:
    code, out, _ = cli("init", *GIVEN, "--user", "no-such-user", "-c", file, "-o", "json")
    found = json.loads(out)
    assert (code, found["path"], found["written"], found["files"]) == (0, str(file), True, [])
    left = found["next"]
    assert [each.split()[0] for each in left] == ["install", "install", "useradd", "mountd", "mountd", "mountd"]
    assert left[-3] == f"mountd config check -c {file}"
    cli("init", "--undo", "-c", file)
    _, out, _ = cli("init", *GIVEN, "--secrets", "credential", "-c", file)
    assert f"LoadCredential=secret_key:{file.parent}/secret_key" in out


def test_a_dry_run_prints_the_file_and_writes_nothing(file: Path, pair: Path, cli: Cli) -> None:
    code, out, err = cli("init", *GIVEN, "--keys", pair, "--dry-run", "-c", file)
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)["remotes"]["store"]["preset"] == "aliyun-oss"
    assert not file.parent.exists()
    code, out, _ = cli("init", *GIVEN, "--dry-run", "-c", file, "-o", "json")
    assert (code, json.loads(out)["written"]) == (0, False)


@pytest.mark.parametrize("there", ["mountd.yaml", "access_key_id", "secret_key"])
def test_nothing_that_is_there_is_written_over(file: Path, pair: Path, cli: Cli, there: str) -> None:
    file.parent.mkdir()
    (file.parent / there).write_text("somebody's")
    code, _, err = cli("init", *GIVEN, "--keys", pair, "-c", file)
    assert (code, there in err, "--force" in err) == (7, True, True)
    assert [(each.name, each.read_text()) for each in file.parent.iterdir()] == [(there, "somebody's")]


def test_with_force_the_file_of_before_is_kept_and_comes_back(file: Path, cli: Cli) -> None:
    file.parent.mkdir()
    file.write_text("first")
    assert cli("init", *GIVEN, "--force", "-c", file)[0] == 0
    assert cli("init", *GIVEN, "--force", "--bucket", "other", "-c", file)[0] == 0
    assert sorted(modes(file.parent)) == ["mountd.yaml", "mountd.yaml.before-init", "mountd.yaml.before-init-2"]
    assert load(file).settings.mounts["storage"].remote == "store:other"
    assert cli("init", "--undo", "-c", file)[0] == 0
    assert load(file).settings.mounts["storage"].remote == "store:hub"
    code, out, _ = cli("init", "--undo", "-c", file, "-o", "json")
    assert (code, json.loads(out)["before"], file.read_text()) == (0, str(file), "first")
    assert sorted(modes(file.parent)) == ["mountd.yaml"]


def test_beside_the_example_the_keys_are_not_written_over(file: Path, pair: Path, cli: Cli) -> None:
    file.parent.mkdir()
    example = (SHARE / "config/mountd.yaml").read_bytes()
    file.write_bytes(example)
    (file.parent / "secret_key").write_text("somebody's")
    code, _, err = cli("init", *GIVEN, "--keys", pair, "-c", file)
    assert (code, "secret_key" in err, "--force" in err) == (7, True, True)
    assert sorted(modes(file.parent)) == ["mountd.yaml", "secret_key"]
    assert (file.read_bytes(), (file.parent / "secret_key").read_text()) == (example, "somebody's")
    (file.parent / "secret_key").unlink()
    assert cli("init", *GIVEN, "--keys", pair, "-c", file)[0] == 0
    assert cli("init", "--undo", "-c", file)[0] == 0
    assert (sorted(modes(file.parent)), file.read_bytes()) == (["mountd.yaml"], example)


def test_with_force_the_keys_of_before_are_kept_and_come_back(file: Path, pair: Path, cli: Cli) -> None:
    assert cli("init", *GIVEN, "--keys", pair, "-c", file)[0] == 0
    first = file.read_text()
    pair.write_text("LTAI5tTEST\nanother\n")  # the first of them is the same
    assert cli("init", *GIVEN, "--keys", pair, "--force", "-c", file)[0] == 0
    assert modes(file.parent) == {
        "mountd.yaml": 0o644,
        "mountd.yaml.before-init": 0o644,
        "access_key_id": 0o600,
        "secret_key": 0o600,
        "secret_key.before-init": 0o600,
    }
    assert (file.parent / "secret_key").read_text() == "another\n"
    code, out, _ = cli("init", "--undo", "-c", file, "-o", "json")
    assert (code, json.loads(out)["before"], json.loads(out)["removed"]) == (0, str(file), [])
    assert (file.read_text(), (file.parent / "secret_key").read_text()) == (first, f"{SECRET}\n")
    assert sorted(modes(file.parent)) == ["access_key_id", "mountd.yaml", "secret_key"]
    assert cli("init", "--undo", "-c", file)[0] == 0
    assert modes(file.parent) == {}


def test_undo_leaves_nothing_behind(file: Path, pair: Path, cli: Cli) -> None:
    cli("init", *GIVEN, "--keys", pair, "-c", file)
    code, out, _ = cli("init", "--undo", "-c", file, "-o", "json")
    assert code == 0
    assert json.loads(out)["removed"] == [
        str(file),
        *(str(file.parent / name) for name in ("access_key_id", "secret_key")),
    ]
    assert modes(file.parent) == {}


def test_undo_takes_back_only_what_init_wrote(file: Path, cli: Cli) -> None:
    assert cli("init", "--undo", "-c", file)[0] == 1, "there is none"
    file.parent.mkdir()
    file.write_text("remotes: {}\n")
    assert cli("init", "--undo", "-c", file)[0] == 7
    file.unlink()
    cli("init", *GIVEN, "-c", file)
    with file.open("a") as written:
        written.write("# mine\n")
    assert cli("init", "--undo", "-c", file)[0] == 7
    assert file.exists()
    assert cli("init", "--undo", "--force", "-c", file)[0] == 0
    assert not file.exists()


def test_undo_removes_no_file_that_somebody_else_names(file: Path, tmp_path: Path, cli: Cli) -> None:
    victim = tmp_path / "victim"
    victim.write_text("stays")
    cli("init", *GIVEN, "-c", file)
    first, _, rest = file.read_text().partition("\n")
    for line in ("# Undoing removes: ../victim victim", "# Undoing brings back: ../victim"):
        file.write_text(f"{first}\n{line}\n{rest}")
        assert cli("init", "--undo", "--force", "-c", file)[0] == 0
        assert victim.read_text() == "stays"
        assert not file.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--yes"),  # nobody can be asked: stdin is no terminal
        (("--yes",), "--store"),
        (("--yes", "--store", "aws", "--region", "us-east-1"), "--bucket"),
        (("--yes", "--store", "aws", "--bucket", "hub"), "--region"),
        (("--yes", "--store", "minio", "--bucket", "hub"), "--endpoint"),
        (("--yes", "--store", "aws", "--bucket", "hub", "--region", "Frankfurt!"), "--region"),
        (("--yes", "--store", "aws", "--bucket", "s3://hub", "--region", "us-east-1"), "--bucket"),
        ((*GIVEN, "--model-version", "latest"), "--model-version"),
        ((*GIVEN, "--directory", "hub"), "--directory"),
        ((*GIVEN, "--app-directory", "srv"), "--app-directory"),
        ((*GIVEN, "--app", "other"), "--app-command"),
        ((*GIVEN, "--results", "/srv/results"), "--results-to"),
        ((*GIVEN, "--results-to", "results"), "--results"),
        ((*GIVEN, "--results", "", "--results-to", "results"), "--results"),
        ((*GIVEN, *RESULTS, "--results", "srv"), "--results"),
        ((*GIVEN, *RESULTS, "--results", "/mnt/hub/outputs", "--mount-point", "/mnt/hub"), "--results"),
        ((*GIVEN, *RESULTS, "--results-to", "s3://results"), "--results-to"),
        ((*GIVEN, "--mount-point", "mnt"), "mounts.storage.path"),
        ((*GIVEN, "--secrets", "env", "--keys", "/dev/null"), "--keys"),
        ((*GIVEN, "--keys", "/nonexistent/pair"), "/nonexistent/pair"),
        ((*GIVEN, "--keys", "/dev/null"), "/dev/null"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_named(
    file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], named: str
) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, out, err = cli("init", *words, "-c", file)
    assert (code, out) == (2, "")
    assert named in err
    assert not file.parent.exists()


def test_keys_that_are_no_pair_are_not_repeated(file: Path, pair: Path, cli: Cli) -> None:
    pair.write_text(f"{SECRET}\n{SECRET}\n{SECRET}\n")
    code, out, err = cli("init", *GIVEN, "--keys", pair, "-c", file)
    assert (code, SECRET in out + err) == (2, False)


# -- at a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """`mountd init` at a terminal: waits for a question, then answers it."""

    def __init__(self, *words: str | Path) -> None:
        self._master, slave = pty.openpty()
        argv = [sys.executable, "-m", "mountd", "init", *map(str, words)]
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = ""
        self._answered = 0

    def answer(self, question: str, text: str) -> None:
        self._until(question)
        os.write(self._master, f"{text}\n".encode())

    def interrupt(self, question: str) -> None:
        self._until(question)
        self.process.send_signal(signal.SIGINT)  # it is not this terminal's foreground group

    def _until(self, question: str) -> None:
        until(lambda: self._read() and question in self.shown[self._answered :], 30, repr(question))
        self._answered = len(self.shown)

    def _read(self) -> bool:
        with suppress(OSError):  # EIO: the last process has closed the other end
            if select.select([self._master], [], [], 0.05)[0]:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
        return True

    def end(self) -> int:
        until(lambda: self._read() and self.process.poll() is not None, 60, "init to end")
        self._read()
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_by_answers_each_is_checked_and_asked_again(file: Path, cli: Cli) -> None:
    with Terminal("-c", file) as terminal:
        terminal.answer("Store (", "oss")
        terminal.answer("must be one of", "aliyun-oss")
        terminal.answer("Region", "oss-cn-hangzhou")
        terminal.answer("is written without 'oss-'", "cn-hangzhou")
        terminal.answer("Network", "internal")
        terminal.answer("Bucket", "oss://hub")
        terminal.answer("must be BUCKET", "hub/models")
        terminal.answer("Program", "index-tts-v23")
        terminal.answer("Directory of the app", "srv/tts")
        terminal.answer("absolute path", "/srv/tts")
        terminal.answer("Directories of the versions", "cache_hub")
        terminal.answer("must contain {version}", "")
        terminal.answer("Version wanted", "latest")
        terminal.answer("latest", "v23")
        terminal.answer("User", "tts")
        terminal.answer("Directory of results", "/mnt/models/outputs")
        terminal.answer("must not lie in mounts.storage.path", "/srv/tts/outputs")
        terminal.answer("Bucket for the results", "oss://results")
        terminal.answer("must be BUCKET", "tts-results/outputs")
        terminal.answer("Access key id", "LTAI5tTEST")
        terminal.answer("Secret key", SECRET)
        assert terminal.end() == 0, terminal.shown
        assert SECRET not in terminal.shown
    code, out, err = cli("config", "check", "-c", file, "-o", "json")
    assert (code, json.loads(out)["warnings"]) == (0, []), err
    settings = load(file).settings
    assert settings.remotes["store"].options["endpoint"] == "https://oss-cn-hangzhou-internal.aliyuncs.com"
    assert settings.mounts["storage"].remote == "store:hub/models"
    assert settings.apps["webui"].command == ["python3", "webui.py", "--listen", "--port", "7860"]
    assert str(settings.outbox["results"].directory) == "/srv/tts/outputs"
    assert settings.outbox["results"].remote == "store:tts-results/outputs"
    assert (file.parent / "secret_key").read_text() == f"{SECRET}\n"
    assert modes(file.parent)["secret_key"] == 0o600


def test_no_directory_of_results_and_no_more_is_asked_of_them(file: Path) -> None:
    store = ("--store", "minio", "--endpoint", "http://minio:9000", "--bucket", "hub", "--app", "none")
    model = ("--app-directory", "/srv/models", "--directory", "m_{version}", "--model-version", "v1")
    with Terminal(*store, *model, "-c", file) as terminal:
        terminal.answer("Directory of results", "")
        terminal.answer("Access key id", "")
        assert terminal.end() == 0, terminal.shown
        assert "Bucket for the results" not in terminal.shown
    assert load(file).settings.outbox == {}


def test_what_options_say_is_not_asked_and_an_interrupt_writes_nothing(file: Path) -> None:
    words = ("--store", "minio", "--endpoint", "http://minio:9000", "--bucket", "hub", "--app", "none")
    with Terminal(*words, "-c", file) as terminal:
        terminal.answer("Directory for the link", "/srv/models")
        terminal.interrupt("Directories of the versions")
        assert terminal.end() == 130
        assert "Store (" not in terminal.shown
    assert not file.exists()
