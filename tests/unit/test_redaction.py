"""No known secret is in what leaves the machine, however it is written there; what looks like one is hidden, too."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cli import bundle, bundle_parts, known_secrets, unit_facts
from mountd.errors import MountdError
from mountd.settings.masking import HIDDEN
from mountd.settings.redaction import SHORTEST, Redactor
from tests.support.archives import unpacked

SECRETS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=8, max_size=40)
AROUND = st.text(st.characters(codec="ascii", exclude_characters="\x7f", min_codepoint=32), max_size=20)


@given(SECRETS, AROUND, AROUND)
def test_a_known_secret_is_hidden_in_each_usual_form(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    forms = {
        "as it is": secret,
        "in an address": quote(secret, safe=""),
        "in a form": quote_plus(secret),
        "in JSON": json.dumps(secret)[1:-1],
    }
    for name, form in forms.items():
        assert form not in redactor.text(f"{before} {form} {after}").replace(HIDDEN, ""), name


@given(SECRETS, st.text(min_size=0, max_size=7))
def test_a_known_secret_is_hidden_within_base64(secret: str, user: str) -> None:
    """As `user:secret` of basic authentication: where it begins shifts its letters."""
    data, prefix = secret.encode(), f"{user}:".encode()
    encoded = base64.b64encode(prefix + data).decode()
    inside = encoded[(len(prefix) * 8 + 5) // 6 : (len(prefix) + len(data)) * 8 // 6]
    assert inside not in Redactor([secret]).text(f"Basic-ish {encoded} end")


@pytest.mark.parametrize(
    "text",
    [
        "id AKIAIOSFODNN7EXAMPLE",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.abc-DEF_123",
        "use ghp_0123456789abcdefABCDEF0123456789abcd",
        "glpat-0123456789abcdefABCD",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "secret_access_key = hunter2hunter2",
        "Environment=S3_SECRET=hunter2hunter2",
        "SetCredential=key:hunter2hunter2",
        "Authorization: Bearer hunter2hunter2",
        "https://me:hunter2hunter2@example.com/x?sig=hunter2hunter2",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    found = Redactor([]).text(text)
    assert HIDDEN in found
    for piece in ("AKIAIOS", "eyJzdWI", "0123456789abcdef", "MIIEow", "hunter2"):
        assert piece not in found


@pytest.mark.parametrize(
    "text", ["mount storage is running (ready)", "2026-01-02T03:04:05Z state changed", "/mnt/x rw - fuse.rclone m rw"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor(["another-secret"]).text(text) == text


def test_a_short_secret_is_not_looked_for() -> None:
    """It would stand in every other word."""
    assert Redactor(["a" * (SHORTEST - 1)]).text("aaaa banana") == "aaaa banana"


def test_a_document_stays_a_document() -> None:
    made = Redactor(["hunter2hunter2"]).document(
        {
            "hunter2hunter2": 1,
            "api_token": "x1y2z3",
            "key": "outputs/a.wav",
            "list": ["a hunter2hunter2", None, 2.5, True],
        }
    )
    assert made == {HIDDEN: 1, "api_token": HIDDEN, "key": "outputs/a.wav", "list": [f"a {HIDDEN}", None, 2.5, True]}


# -- which are known --------------------------------------------------------------------------------------------------


UNIT = r"""# /etc/systemd/system/mountd.service
[Service]
ExecStartPre=/usr/bin/fetch --password hunter2hunter2
ExecStart=/usr/bin/fetch -v \
  --token \
# between, --verbose is \
# --secret hunter2hunter2
  hunter2hunter2 --retries 3
# ExecStop=/usr/bin/fetch --passphrase \
#   hunter2hunter2
Environment="A=1" "OPTIONS=--password hunter2hunter2"
ExecReload=/bin/sh -c "fetch --password \"hunter2hunter2\" && kill -HUP $MAINPID"
ExecStopPost=/usr/bin/fetch 'not closed --password hunter2hunter2
Description=ends with a backslash \\
User=mountd
"""


def test_commands_of_a_unit_are_shown_without_their_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `systemctl cat` shows them, in the part of the bundle."""
    (tmp_path / "unit").write_text(UNIT)
    script = f'#!/bin/sh\nif [ "$1" = cat ]; then cat {tmp_path}/unit; else echo LoadState=loaded; fi\n'
    for name in ("systemctl", "journalctl"):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(unit_facts, "SYSTEMD", str(tmp_path))
    place = bundle_parts.BundlePlace(tmp_path, "", "mountd.service", None, None, None, None)
    shown = Redactor([]).text(str(bundle_parts.unit(place)["unit/cat.txt"]))
    assert "hunter2" not in shown
    for kept in ("--retries 3\n", "/usr/bin/fetch -v", "A=1", "kill -HUP $MAINPID", "backslash \\\\\nUser=mountd\n"):
        assert kept in shown


def known(tmp_path: Path, text: str) -> known_secrets.KnownSecrets:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    return known_secrets.collect(path, "mountd.service", [], [])


def test_secrets_of_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_TEST_VALUE", "of-a-variable")
    (tmp_path / "f").write_text("of-a-file\n")
    (tmp_path / "t").write_text("operator ci of-a-token-file-1\nreader x of-a-token-file-2\n")
    (tmp_path / "j").write_text('{"access_token": "of-some-json", "expiry": "2026"}')
    found = known(
        tmp_path,
        f"""
remotes:
  s: {{secret_access_key: plain-one, sas_url: "https://x/?sig=z", token: {{file: {tmp_path}/j}}}}
  t: {{secret_access_key: {{env: MOUNTD_TEST_VALUE}}, pass: {{file: {tmp_path}/f}}}}
apps:
  a:
    command: [x, --token, of-a-command, --password=of-an-option, "https://u:of-an-address@h/"]
    environment: {{API_KEY: of-the-app, PLAIN: nothing-special}}
http: {{tokens: {{file: {tmp_path}/t}}}}
models: {{m: {{desired: {{git: {{url: "https://u:of-a-repository@h/x.git"}}}}}}}}
""",
    )
    wanted = {
        *("plain-one", "of-a-variable", "of-a-token-file-1", "of-a-token-file-2", "of-some-json", "of-the-app"),
        *("of-a-command", "of-an-option", "of-an-address", "of-a-repository"),
    }
    assert wanted <= found.values
    assert any("of-a-file" in value for value in found.values)
    assert "nothing-special" not in found.values
    assert found.unread == []


def test_what_cannot_be_read_is_named_and_a_broken_file_gives_what_it_can(tmp_path: Path) -> None:
    found = known(tmp_path, "remotes: {s: {secret_access_key: {env: NO_SUCH_VARIABLE}, pass: {credential: nobody}}}")
    assert [each.partition(":")[0] for each in found.unread] == ["remotes.s.secret_access_key", "remotes.s.pass"]
    broken = known(
        tmp_path, "remotes:\n\ts: [\n  secret_access_key: of-a-broken-file\n url: https://u:also-this-one@h/\n"
    )
    assert {"of-a-broken-file", "also-this-one"} <= broken.values


# -- the archive ------------------------------------------------------------------------------------------------------


def test_parts_that_fail_hang_or_are_too_large_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = threading.Event()
    monkeypatch.setattr(bundle, "PART_BYTES", 1000)
    monkeypatch.setattr(bundle, "TOTAL_BYTES", 1500)
    made = bundle.Bundle(Redactor(["hunter2hunter2"]))

    def fail() -> bundle.Files:
        raise OSError("no hunter2hunter2 here")

    def hang() -> bundle.Files:
        forever.wait()
        return {}

    made.gather(
        [
            bundle.Part("good", lambda: {"good.txt": "hunter2hunter2\n"}),
            bundle.Part("bad", fail),
            bundle.Part("hangs", hang, 0.2),
            bundle.Part("large", lambda: {f"large{number}.txt": "line\n" * 1000 for number in range(3)}),
        ]
    )
    forever.set()
    assert made.files["good.txt"] == f"{HIDDEN}\n".encode()
    assert sum(map(len, made.files.values())) <= 1500
    assert made.files["large0.txt"].startswith(b"line\n")
    path = tmp_path / "b.tar.gz"
    assert made.write(path) > 0
    assert path.stat().st_mode & 0o777 == 0o600
    notes = " ".join(made.notes)
    assert all(name in notes for name in ("bad: OSError", "hangs: no end", "large0.txt: only its last"))
    assert not any(b"hunter2" in data for _, data in unpacked(path.read_bytes()))


def test_what_hangs_before_the_bundle_ends_it() -> None:
    """Without the secrets nothing can be cleaned of them."""
    forever = threading.Event()
    with pytest.raises(MountdError, match="read the secrets"):
        bundle.within(0.2, "read the secrets", forever.wait)
    forever.set()
    assert bundle.within(20, "add", lambda: 1 + 1) == 2
