"""rclone.conf and the files of its keys, on a real disk: what is written, what stays hidden, what a change of a secret
means for an rclone that runs, and what rclone wrote itself. Only rclone is not asked."""

from __future__ import annotations

import asyncio
import configparser
import json
from pathlib import Path
from typing import Any

import pytest

from mountd.daemon.secret_files import SecretFiles
from mountd.errors import CannotStart
from mountd.rclone import conf_file, private_file
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile, RemoteSecrets, SecretChange
from mountd.settings.schema import Settings

SFTP = Binary(Path("/opt/rclone"), (1, 75, 2), frozenset(), {"sftp": frozenset({"pass"})})
Remotes = dict[str, dict[str, str]]


class Written:
    """A ConfFile, the files of its secrets, and how often rclone was asked to obscure one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = root / "run" / "private"
        self.record = root / "state" / "record.json"
        self.obscured: list[str] = []
        for name in ("id", "secret", "pass"):
            self.put(name, f"first-{name}")
        self.conf = self.again()

    def again(self) -> ConfFile:
        """Of another run of mountd."""
        return ConfFile(self.place / "rclone.conf", SFTP, record=self.record)

    def put(self, name: str, value: str) -> None:
        (self.root / name).write_text(value)

    def settings(self, **remotes: dict[str, Any]) -> Settings:
        files = {name: {"file": str(self.root / name)} for name in ("id", "secret", "pass")}
        known: dict[str, dict[str, Any]] = {
            "s": {"type": "s3", "access_key_id": files["id"], "secret_access_key": files["secret"]},
            "h": {"type": "sftp", "host": "h", "pass": files["pass"]},
            **remotes,
        }
        own = {"control": {"socket": "/run/x/s"}, "state": str(self.root / "st"), "runtime": str(self.root / "run")}
        mount = {"remote": "s:b", "path": "/m", "cache": {"dir": "/c"}}
        return Settings.model_validate({**own, "remotes": known, "mounts": {"m": mount}})

    async def write(self, **remotes: dict[str, Any]) -> dict[str, RemoteSecrets]:
        return await self.conf.write(self.settings(**remotes))

    @property
    def remotes(self) -> Remotes:
        return sections(self.place / "rclone.conf")

    def rclone_writes(self, **remotes: dict[str, str]) -> None:
        parser = configparser.RawConfigParser()
        parser.read_dict({**self.remotes, **remotes})
        with (self.place / "rclone.conf").open("w") as file:
            parser.write(file)

    @property
    def keys(self) -> tuple[str, str]:
        found = json.loads((self.place / "aws-s.json").read_text())
        return found["AccessKeyId"], found["SecretAccessKey"]


def sections(path: Path) -> Remotes:
    parser = configparser.RawConfigParser()
    parser.read(path)
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    it = Written(tmp_path)

    async def obscure(_: Binary, value: str) -> str:
        it.obscured.append(value)
        return f"{value[::-1]}{len(it.obscured)}"

    async def dump(_: Binary, path: Path) -> Remotes:
        return sections(path)

    monkeypatch.setattr(conf_file, "obscure", obscure)
    monkeypatch.setattr(conf_file, "dump", dump)
    monkeypatch.setattr(conf_file, "SETTLED_S", 0.0)
    monkeypatch.setattr(conf_file, "SETTLING_STEP_S", 0.0)
    return it


# -- what is written --------------------------------------------------------------------------------------------------


async def test_keys_lie_beside_the_file_and_all_is_for_one_user_alone(written: Written) -> None:
    (written.place).mkdir(parents=True)
    for name in ("aws-former.json", "rclone.conf.old", ".rclone.conf.x"):
        (written.place / name).touch()
    has = await written.write()
    assert written.keys == ("first-id", "first-secret")
    assert "first-" not in str(written.remotes["s"])
    assert written.remotes["h"]["pass"] == "ssap-tsrif1"
    assert {path.stat().st_mode & 0o777 for path in written.place.iterdir()} == {0o600}
    expected = {"rclone.conf", "aws-s.json", "aws.config", "aws-credentials.sh"}
    assert {path.name for path in written.place.iterdir()} == expected, "leftovers are gone"
    assert dict(has["s"].live["s"]) == {"access_key_id": "first-id", "secret_access_key": "first-secret"}
    assert has["h"].live == {}
    (written.place / "aws-former.json").touch()
    await written.write()
    assert (written.place / "aws-former.json").exists(), "an rclone may still run that needs it"


async def test_a_log_shows_no_secret_not_even_a_former_one(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    await written.write()
    assert {"first-id", "first-secret", "first-pass", "ssap-tsrif1"} <= set(written.conf.secrets)
    written.put("secret", "second-secret")
    await written.write()
    assert {"first-secret", "second-secret"} <= set(written.conf.secrets)
    monkeypatch.setattr(conf_file, "REMEMBERED_SECRETS", 4)
    written.put("secret", "third-secret")
    await written.write()
    assert len(written.conf.secrets) == 4
    assert "third-secret" in written.conf.secrets, "the newest stay"


async def test_the_same_password_is_obscured_once(written: Written) -> None:
    await written.write()
    before = written.remotes
    await written.write()
    assert (written.obscured, written.remotes) == (["first-pass"], before)
    written.put("pass", "second-pass")
    await written.write()
    assert written.obscured == ["first-pass", "second-pass"]
    await written.write(h={"type": "sftp", "host": "h", "pass": ""})
    assert len(written.obscured) == 2


async def test_a_secret_that_cannot_be_read_now_is_taken_as_it_was(written: Written) -> None:
    (written.root / "secret").unlink()
    with pytest.raises(CannotStart):
        await written.write()
    written.put("secret", "first-secret")
    has = await written.write()
    (written.root / "secret").unlink()
    await written.write()
    assert written.keys == ("first-id", "first-secret")
    with pytest.raises(CannotStart):
        await written.conf.refresh(written.settings(), "s", has["s"])


# -- an rclone that runs ----------------------------------------------------------------------------------------------


async def test_what_new_secrets_mean_for_an_rclone(written: Written) -> None:
    has = await written.write()
    settings, refresh = written.settings(), written.conf.refresh
    assert (await refresh(settings, "s", has["s"])).change is SecretChange.NOTHING
    written.put("id", "second-id")
    written.put("secret", "second-secret")
    found = await refresh(settings, "s", has["s"])
    assert (found.change, found.resigned) == (SecretChange.LIVE, False)
    assert written.keys == ("second-id", "second-secret")
    assert "second-secret" in written.conf.secrets
    assert (await refresh(settings, "s", found.has)).change is SecretChange.NOTHING
    assert (await refresh(settings, "h", has["h"])).change is SecretChange.NOTHING, "they are not behind it"
    written.put("pass", "second-pass")
    found = await refresh(settings, "h", has["h"])
    assert found.change is SecretChange.REMOUNT
    assert (await refresh(settings, "h", found.has)).change is SecretChange.REMOUNT, "until there is a new one"


async def test_a_key_id_with_another_secret_may_still_sign_with_the_former_one(written: Written) -> None:
    has = await written.write()
    written.put("secret", "second-secret")
    found = await written.conf.refresh(written.settings(), "s", has["s"])
    assert (found.change, found.resigned) == (SecretChange.LIVE, True)
    again = await written.conf.refresh(written.settings(), "s", found.has)
    assert (again.change, again.resigned) == (SecretChange.NOTHING, True), "as long as it runs"
    written.put("id", "second-id")
    found = await written.conf.refresh(written.settings(), "s", again.has)
    assert not found.resigned


async def test_files_that_look_the_same_are_not_read_again(written: Written) -> None:
    settings = written.settings()
    has = (await written.conf.write(settings))["s"]
    read, reads = written.conf.read_secrets, 0

    async def counting(secrets: Any) -> dict[str, str]:
        nonlocal reads
        reads += 1
        return await read(secrets)

    written.conf.read_secrets, written.conf.look_at_files = counting, SecretFiles(list).look
    for expected in (2, 2, 2):  # two files, once
        assert (await written.conf.refresh(settings, "s", has)).change is SecretChange.NOTHING
        assert reads == expected
    written.rclone_writes(s=written.remotes["s"] | {"token": "T1"})
    for expected in (4, 4):  # what rclone wrote is looked at, and all of it once more
        assert (await written.conf.refresh(settings, "s", has)).change is SecretChange.NOTHING
        assert reads == expected
    written.put("secret", "other-secret")  # of the same size as the first
    found = await written.conf.refresh(settings, "s", has)
    assert (found.change, found.resigned, written.keys[1]) == (SecretChange.LIVE, True, "other-secret")
    for _ in range(2):
        reads = 0
        again = await written.conf.refresh(settings, "s", found.has)
        assert (again.change, again.resigned) == (SecretChange.NOTHING, True), "as long as it runs"
        assert reads == 2
    reads = 0
    other = written.settings()
    for expected in (2, 2):
        await written.conf.refresh(other, "h", (await written.conf.write(other))["h"])
        assert reads >= expected, "of other settings, or of another rclone"


async def test_secrets_that_do_not_come_to_rest_are_left_for_the_next_time(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = await written.write()
    monkeypatch.setattr(conf_file, "SETTLED_S", 60.0)
    monkeypatch.setattr(conf_file, "SETTLING_LIMIT_S", -1.0)
    read, count = written.conf.read_secrets, 0

    async def changing(secrets: Any) -> dict[str, str]:
        nonlocal count
        count += 1
        return {name: f"{value}-{count}" for name, value in (await read(secrets)).items()}

    written.conf.read_secrets = changing
    found = await written.conf.refresh(written.settings(), "s", has["s"])
    assert (found.change, found.has) == (SecretChange.NOTHING, has["s"])
    assert written.keys == ("first-id", "first-secret")


async def test_a_start_waits_until_the_keys_of_another_rclone_have_come_to_rest(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written.write()
    settled: list[str] = []
    settle = ConfFile._settled

    async def note(self: ConfFile, *given: Any, **ways: Any) -> Any:
        settled.append("waited")
        return await settle(self, *given, **ways)

    monkeypatch.setattr(ConfFile, "_settled", note)
    await written.write()
    assert settled == []
    written.put("secret", "second-secret")
    await written.write()
    assert settled == ["waited"]
    assert written.keys == ("first-id", "second-secret")
    written.put("secret", "third-secret")
    written.conf = written.again()
    await written.write()
    assert settled == ["waited"], "no rclone of a previous run is left"
    assert written.keys == ("first-id", "third-secret")


# -- what rclone writes -----------------------------------------------------------------------------------------------

DRIVE = {"type": "drive", "token": "T0"}


async def test_a_token_that_rclone_renewed_outlasts_the_file(written: Written) -> None:
    await written.write(d=DRIVE)
    written.rclone_writes(d=DRIVE | {"token": "T1"})
    await written.write(d=DRIVE)
    assert written.remotes["d"]["token"] == "T1"
    assert "T1" in written.conf.secrets
    written.rclone_writes(d=DRIVE | {"token": "T2"})
    await written.conf.remember()
    (written.place / "rclone.conf").unlink()  # a reboot
    written.conf = written.again()
    await written.write(d=DRIVE)
    assert written.remotes["d"]["token"] == "T2"
    await written.write(d=DRIVE | {"token": "N0"})
    assert written.remotes["d"]["token"] == "N0", "the admin renewed it"


async def test_a_look_at_the_secrets_remembers_as_well(written: Written) -> None:
    has = await written.write(d=DRIVE)
    written.rclone_writes(d=DRIVE | {"token": "T1"})
    await written.conf.refresh(written.settings(d=DRIVE), "d", has["d"])
    assert "T1" in written.record.read_text()
    assert written.record.stat().st_mode & 0o777 == 0o600


async def test_what_rclone_wrote_is_read_once(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    await written.write(d=DRIVE)
    asked: list[Path] = []

    async def fail(_: Binary, path: Path) -> Remotes:
        asked.append(path)
        raise CannotStart("no memory")

    monkeypatch.setattr(conf_file, "dump", fail)
    await written.conf.remember()
    assert asked == [], "mountd wrote it"
    written.rclone_writes(d=DRIVE | {"token": "T1"})
    for _ in range(2):
        await written.conf.remember()
    assert len(asked) == 1


@pytest.mark.parametrize("text", ["{", '{"salt": 7}'])
async def test_a_record_that_makes_no_sense_is_begun_again(written: Written, text: str) -> None:
    written.record.parent.mkdir()
    written.record.write_text(text)
    await written.write(d=DRIVE)
    assert json.loads(written.record.read_text())["salt"]


async def test_a_record_that_cannot_be_written_keeps_no_mount_down(written: Written) -> None:
    (written.root / "state").touch()
    await written.write(d=DRIVE)
    written.rclone_writes(d=DRIVE | {"token": "T1"})
    await written.write(d=DRIVE)
    assert written.remotes["d"]["token"] == "T1"


async def test_what_rclone_writes_in_that_moment_is_not_lost(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    await written.write(d=DRIVE)
    replace, count = private_file.replace, 0

    def write(path: Path, text: str, *, expected: str | None = None) -> bool:
        nonlocal count
        if path.name == "rclone.conf":
            count += 1
            if count == 1:
                raise BlockingIOError
        return replace(path, text, expected=expected)

    monkeypatch.setattr(conf_file, "replace", write)
    await written.write(d=DRIVE | {"scope": "drive"})
    assert (count, written.remotes["d"]["scope"]) == (2, "drive")


async def test_a_file_in_the_form_of_rclone_stays_as_long_as_it_says_the_same(written: Written) -> None:
    await written.write(d=DRIVE)
    written.rclone_writes(d=DRIVE | {"token": "T1"})
    before = (written.place / "rclone.conf").read_text()
    await written.write(d=DRIVE)
    assert (written.place / "rclone.conf").read_text() == before


async def test_what_is_written_while_it_is_read_is_learnt_the_next_time(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written.write(d=DRIVE)
    written.rclone_writes(d=DRIVE | {"token": "T1"})

    async def late(binary: Binary, path: Path) -> Remotes:
        found = await asyncio.to_thread(sections, path)
        await asyncio.to_thread(written.rclone_writes, d=DRIVE | {"token": "T2"})
        return found

    with monkeypatch.context() as patched:
        patched.setattr(conf_file, "dump", late)
        await written.conf.remember()
    assert "T1" not in written.record.read_text()
    await written.conf.remember()
    assert "T2" in written.record.read_text()
