"""What the TCP port is opened with, as files: what cannot be used is a problem of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import CannotStart
from mountd.settings import http_files
from mountd.settings.http import HttpSettings
from mountd.settings.load import Places, check_secrets, parse
from mountd.settings.tokens import Holder
from tests.support.admitted import LINES, OPERATOR, READER
from tests.support.tls import make_certificate

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def problems(**http: Any) -> dict[str, str]:
    """By place."""
    data = {
        "remotes": {"store": {"type": "s3", "provider": "AWS"}},
        "mounts": {"storage": {"remote": "store:data", "path": "/mnt"}},
        "http": http,
    }
    loaded = parse(yaml.safe_dump(data), "x.yaml", PLACES)
    return {each.path: each.text for each in check_secrets(loaded.settings, loaded.lines)}


def test_tokens_of_a_file_and_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = private(tmp_path / "tokens", LINES)
    monkeypatch.setenv("MOUNTD_TOKENS", f"operator ci {OPERATOR}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for reference in ({"file": str(file)}, {"env": "MOUNTD_TOKENS"}, {"credential": "tokens"}):
        found = http_files.read_tokens(HttpSettings.model_validate({"tokens": reference}))
        assert found.holder(OPERATOR) == Holder("ci", "operator")
        assert (found.holder(READER) is None) is ("env" in reference)
        assert problems(tokens=reference) == {}
    assert not http_files.read_tokens(HttpSettings()).is_configured


@pytest.mark.parametrize(
    ("mode", "is_usable"), [(0o600, True), (0o440, True), (0o640, True), (0o604, False), (0o644, False)]
)
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int, is_usable: bool) -> None:
    file = private(tmp_path / "tokens", LINES, mode)
    link = tmp_path / "link"  # as Kubernetes has it: what it leads to counts
    link.symlink_to(file)
    for path in (file, link):
        found = problems(tokens={"file": str(path)})
        assert ("http.tokens" in found) is not is_usable
        assert all("chmod o=" in text for text in found.values())


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n", "operator ci short\n", f"admin ci {OPERATOR}\n"])
def test_lines_that_cannot_be_used_are_a_problem_that_holds_no_token(tmp_path: Path, text: str) -> None:
    found = problems(tokens={"file": str(private(tmp_path / "tokens", text))})
    assert found.keys() == {"http.tokens"}
    assert OPERATOR not in str(found)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    found = problems(tokens={"file": str(tmp_path / "none")})
    assert found.keys() == {"http.tokens"}
    assert str(tmp_path / "none") in found["http.tokens"]


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    (certificate, key), (_, other) = (make_certificate(tmp_path, name) for name in ("one", "two"))
    for path in (key, other):
        path.chmod(0o600)

    def tls(first: Path, second: Path) -> dict[str, Any]:
        return {"certificate": {"file": str(first)}, "key": {"file": str(second)}}

    assert problems(tls=tls(certificate, key)) == {}
    assert problems(tls=tls(certificate, other)).keys() == {"http.tls.key"}
    assert problems(tls=tls(tmp_path / "none", key)).keys() == {"http.tls.certificate"}
    assert problems(tls=tls(certificate, tmp_path / "none")).keys() == {"http.tls.key"}
    key.chmod(0o644)
    assert problems(tls=tls(certificate, key)).keys() == {"http.tls.key"}
    with pytest.raises(CannotStart) as refused:
        http_files.read_context(HttpSettings.model_validate({"tls": tls(certificate, key)}).tls)
    assert refused.value.code == "secret-readable"


@pytest.mark.parametrize(
    ("http", "warns"),
    [
        ({"listen": "0.0.0.0:8780", "tokens": {"file": "/t"}}, ["http.listen"]),
        ({"listen": ":8780", "tokens": {"file": "/t"}}, ["http.listen"]),
        ({"listen": "[::1]:8780", "tokens": {"file": "/t"}}, []),
        ({"listen": "localhost:8780", "tokens": {"file": "/t"}}, []),
        ({"listen": "0.0.0.0:8780"}, []),
        ({"listen": "0.0.0.0:8780", "tokens": {"file": "/t"}, "behind_proxy": "true"}, []),
        ({"behind_proxy": "true"}, ["http.behind_proxy"]),
        (
            {
                "listen": "0.0.0.0:8780",
                "tokens": {"file": "/t"},
                "tls": {"certificate": {"file": "/c"}, "key": {"file": "/k"}},
            },
            [],
        ),
    ],
)
def test_tokens_in_plain_text_are_warned_of(http: dict[str, Any], warns: list[str]) -> None:
    data = {
        "remotes": {"store": {"type": "s3", "provider": "AWS"}},
        "mounts": {"storage": {"remote": "store:data", "path": "/mnt"}},
        "http": http,
    }
    assert [each.path for each in parse(yaml.safe_dump(data), "x.yaml", PLACES).warnings] == warns
