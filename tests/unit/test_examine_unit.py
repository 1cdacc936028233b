"""What doctor makes of systemd's unit: which credentials it passes, and what there is still to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mountd.cli.examine_unit import Unit, credentials, hardening, how_to_start

TEXT = """\
# /etc/systemd/system/mountd.service
[Service]
ExecStart=/usr/bin/env mountd run -c /etc/mountd/mountd.yaml
#LoadCredential=commented:/x
LoadCredential=s3-secret:/etc/mountd/secret_key
 LoadCredentialEncrypted = sealed
SetCredential=plain:text
ImportCredential=mountd.*
"""


@pytest.mark.parametrize(
    ("name", "passed"),
    [
        ("s3-secret", True),
        ("sealed", True),
        ("plain", True),
        ("mountd.key", True),
        ("commented", False),
        ("s3", False),
        ("text", False),
    ],
)
def test_which_credentials_the_unit_passes(name: str, passed: bool) -> None:
    unit = Unit(TEXT, "inactive")
    assert unit.passes(name) is passed
    (check,) = credentials(unit, [name, name])
    assert (check.result, bool(check.hint)) == (("ok", False) if passed else ("fail", True))
    (check,) = credentials(None, [name])
    assert check.result == "warn"


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("LoadCredential=a:/x\nLoadCredential=\n", False),
        ("LoadCredential=a:/x\nLoadCredentialEncrypted=\n", False),
        ("LoadCredential=a:/x\nSetCredential=\nImportCredential=\n", True),
        ("LoadCredential=\nLoadCredential=a:/x\n", True),
        ("ImportCredential=a*\nImportCredential=\n", False),
        ("LoadCredential=\na:/x\n", False),
        ("LoadCredential=\\\n# a comment\n  a:/x\n", True),
    ],
)
def test_an_empty_value_clears_the_list(text: str, passed: bool) -> None:
    assert Unit(text, "inactive").passes("a") is passed


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ExecStart=mountd run -c /a/m.yaml\n", True),
        ("ExecStart=mountd run --config=/a/m.yaml --x\n", True),
        ("ExecStart=mountd run \\\n  -c '/a/m.yaml'\n", True),
        ("Environment=MOUNTD_CONFIG=/a/m.yaml\nExecStart=mountd run\n", True),
        ("# ExecStart=mountd run -c /a/m.yaml\n", False),
        ("ExecStart=mountd run -c /a/m.yaml.bak\n", False),
        ("ExecStart=mountd run -c /b/a/m.yaml\n", False),
        ("ConditionPathExists=/a/m.yaml\nExecStart=mountd run -c /b.yaml\n", False),
        ("ExecStart=mountd run -c /a/m.yaml\nExecStart=\nExecStart=mountd run -c /b.yaml\n", False),
    ],
)
def test_which_file_the_unit_names(text: str, named: bool) -> None:
    assert Unit(text, "inactive").names(Path("/a/m.yaml")) is named


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        ("inactive", ["systemctl start mountd"]),
        ("failed", ["systemctl status mountd", "systemctl restart mountd"]),
        ("activating", ["systemctl status mountd"]),
        ("active", ["systemctl status mountd"]),
    ],
)
def test_no_hint_starts_what_runs(state: str, commands: list[str]) -> None:
    assert re.findall(r"systemctl \w+ mountd", how_to_start(Unit(TEXT, state), Path("/x.yaml"))) == commands


def test_without_a_unit_the_command_itself_is_named() -> None:
    assert how_to_start(None, Path("/x.yaml")).endswith(": mountd run -c /x.yaml")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", []),
        ("PrivateMounts=no\nProtectSystem=false\nPrivateTmp=\nLockPersonality=yes\n", []),
        ("ProtectSystem=strict\nPrivateTmp=yes\n", ["PrivateTmp=yes, ProtectSystem=strict makes"]),
        ("PrivateTmp=yes\nPrivateTmp=no\n", []),
        ("User=mountd\nLockPersonality=yes\n", ["LockPersonality=yes"]),
        ("User=mountd\nDynamicUser=yes\n", ["DynamicUser=yes makes", "DynamicUser=yes sets"]),
        ("User=root\nNoNewPrivileges=yes\n", []),
    ],
)
def test_which_options_hide_a_mount_or_forbid_it(text: str, quoted: list[str]) -> None:
    checks = hardening(Unit(text, "inactive"))
    assert [check.result for check in checks] == (["fail"] * len(quoted) or ["ok"])
    for check, word in zip(checks, quoted, strict=False):
        assert word in check.text


def test_the_shipped_units_have_none() -> None:
    units = Path(__file__).parents[2] / "systemd"
    for name in ("mountd.service", "mountd@.service"):
        text = (units / name).read_text() + (units / "user.conf").read_text()
        assert [check.result for check in hardening(Unit(text, "active"))] == ["ok"]
    assert hardening(None) == []
