"""What rclone wrote itself stays, what the settings say now wins: over any history of both."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.writeback import WritebackRecord, learn, merge

EMPTY = WritebackRecord(salt="salt")
DRIVE = {"type": "drive", "scope": "drive", "token": "T0"}


def text_of(remotes: object) -> str:
    return repr(remotes)


def step(
    record: WritebackRecord, settings: dict[str, dict[str, str]]
) -> tuple[dict[str, dict[str, str]], WritebackRecord]:
    return merge(record, settings, settings)


def test_a_token_that_rclone_refreshed_stays() -> None:
    file, record = step(EMPTY, {"d": DRIVE})
    assert file == {"d": DRIVE}
    found = {"d": DRIVE | {"token": "T1", "root_folder_id": "xyz"}}
    record = learn(record, found, text_of(found))
    assert record.remotes["d"].kept == {"token": "T1", "root_folder_id": "xyz"}

    file, record = step(record, {"d": DRIVE | {"scope": "drive.readonly"}, "new": {"type": "local"}})
    assert file["d"] == DRIVE | {"token": "T1", "root_folder_id": "xyz", "scope": "drive.readonly"}
    # Repeatedly: it is not taken for ours because we wrote it once.
    record = learn(record, file, text_of(file))
    assert step(record, {"d": DRIVE})[0]["d"]["token"] == "T1"


def test_a_token_that_the_admin_renewed_wins() -> None:
    _, record = step(EMPTY, {"d": DRIVE})
    record = learn(record, {"d": DRIVE | {"token": "T1"}}, "")
    file, record = step(record, {"d": DRIVE | {"token": "N0"}})
    assert file["d"]["token"] == "N0"
    assert record.remotes["d"].kept == {}


def test_another_type_or_a_removed_remote_or_option_forgets() -> None:
    _, record = step(EMPTY, {"d": DRIVE})
    record = learn(record, {"d": DRIVE | {"token": "T1", "extra": "e"}}, "")
    assert step(record, {"d": {"type": "box", "token": "T0"}})[0] == {"d": {"type": "box", "token": "T0"}}
    assert step(record, {"d": {"type": "drive"}})[0] == {"d": {"type": "drive", "extra": "e"}}
    _, record = step(record, {"x": {"type": "local"}})
    assert step(record, {"d": DRIVE})[0] == {"d": DRIVE}


def test_a_previous_value_of_mountd_is_not_taken_for_one_of_rclone() -> None:
    before, record = step(EMPTY, {"d": DRIVE})
    _, record = step(record, {"d": {"type": "drive", "scope": "other"}})
    record = learn(record, before, "")  # rclone saved what it had read before we wrote
    assert record.remotes["d"].kept == {}
    assert step(record, {"d": {"type": "drive", "scope": "other"}})[0] == {"d": {"type": "drive", "scope": "other"}}


def test_an_empty_or_foreign_file_teaches_nothing() -> None:
    _, record = step(EMPTY, {"d": DRIVE})
    record = learn(record, {"d": DRIVE | {"token": "T1"}}, "")
    for found in ({}, {"z": {"type": "s3"}}):
        assert step(learn(record, found, "x"), {"d": DRIVE})[0]["d"]["token"] == "T1"


def test_a_password_is_compared_by_what_was_asked() -> None:
    asked = {"f": {"type": "sftp", "pass": "hunter2"}}
    _, record = merge(EMPTY, {"f": {"type": "sftp", "pass": "OBSCURED-1"}}, asked)
    record = learn(record, {"f": {"type": "sftp", "pass": "OBSCURED-1"}}, "")
    file, _ = merge(record, {"f": {"type": "sftp", "pass": "OBSCURED-2"}}, asked)
    assert file["f"]["pass"] == "OBSCURED-2"


def test_the_record_holds_no_secret_of_the_settings() -> None:
    _, record = step(EMPTY, {"d": DRIVE | {"client_secret": "hunter2"}})
    assert "hunter2" not in record.model_dump_json()
    assert WritebackRecord.model_validate_json(record.model_dump_json()) == record
    learnt = learn(record, {"d": DRIVE | {"client_secret": "hunter2", "token": "T1"}}, "x")
    assert "hunter2" not in learnt.model_dump_json()
    assert "T1" not in repr(learnt)


values = st.sampled_from(["0", "1", "2"])
options = st.dictionaries(st.sampled_from(["token", "scope"]), values)
steps = st.lists(st.tuples(st.sampled_from(["settings", "rclone"]), options), max_size=12)


@given(steps)
def test_the_newer_one_wins(history: list[tuple[str, dict[str, str]]]) -> None:
    """Each option has the value that was set last, by mountd or rclone; those of rclone have a letter in front."""
    record, given = EMPTY, {"type": "drive"}
    file, record = step(record, {"d": given})
    expected: dict[str, str] = {}
    for who, changes in history:
        if who == "rclone":
            changed = {option: f"r{value}" for option, value in changes.items()}
            file = {"d": file["d"] | changed}
            record = learn(record, file, text_of(file))
            expected |= changed
        else:
            before = given
            given = {"type": "drive"} | changes
            file, record = step(record, {"d": given})
            for option in ("token", "scope"):
                if given.get(option) != before.get(option):
                    expected.pop(option, None)
                    expected |= {option: given[option]} if option in given else {}
        assert file["d"] == {"type": "drive"} | expected
