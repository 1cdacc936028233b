"""For each row of the table in docs/faults.md: the root cause that `mountd explain` names.

The snapshots are what a daemon shows in that fault. `real` names the test that brings the fault about in a real daemon
and asks it the same; a test checks that it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import mountd
from mountd.errors import Problem
from mountd.status.explain import explain
from mountd.status.grounds import Background
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import (
    ConfigStatus,
    Health,
    MountStage,
    Reason,
    RemoteStatus,
    Snapshot,
    State,
)
from tests.unit.test_explain import GOOD, STARTING, STOPPED, T0, WAITING, now

TOP = Path(mountd.__file__).parents[1]
NOTHING = Background()
RESTARTED = {"restarts": 1, "unasked": 1, "since": T0}
RUNS = {"state": State.RUNNING, "health": Health.DEGRADED}
BACKOFF = {"state": State.BACKOFF, "stage": MountStage.PREFLIGHT, "health": Health.DEGRADED, "backend": RemoteStatus()}
ASKS = {"state": State.STARTING, "stage": MountStage.ANSWERING, "health": Health.PROGRESSING}


@dataclass(frozen=True)
class Row:
    """`codes`: what the root may be. `real`: FILE::TEST below tests/, empty where only the snapshot shows it."""

    snapshot: Snapshot
    codes: tuple[str, ...]
    real: str = ""
    background: Background = NOTHING


def bucket(code: str, text: str, health: Health = Health.DEGRADED) -> RemoteStatus:
    return RemoteStatus(health, Reason(code, text, "bucket", "store", "look there"))


def of(layer: str, code: str, text: str, name: str = "disk") -> Reason:
    return Reason(code, text, layer, name, "look there")


KILLED = of("rclone", "rclone-killed", "rclone was killed (signal SIGKILL)")
EXITED = of("rclone", "rclone-exited", "rclone exited by itself, without an error (exit code 0)")
HUNG = of("mount", "mount-hung", "mount disk is hung: 2 liveness probes in a row were missed")
AWAY = bucket("bucket-unreachable", "store: the endpoint cannot be reached: connection refused")
SLOW = bucket("bucket-slow", "store needs 5 s for one request")
NOT_THERE = of("link", "waiting-for-content", "waiting for content: cannot use v23: gpt.pth is missing", "hub")
ARCHIVED = of("link", "waiting-for-content", "waiting for content: models/gpt.pth: the object is archived", "hub")
UNSENT = of("outbox", "outbox-waiting", "results of results wait for their upload: connection refused", "results")
MISSING = {**WAITING, "health": Health.MISSING}

ROWS: dict[str, list[Row]] = {
    "rclone killed": [
        Row(
            now({**RESTARTED, "fault": KILLED}, app=STARTING),
            ("rclone-killed",),
            "integration/test_faults_process.py::test_a_killed_rclone",
        )
    ],
    "rclone hangs": [
        Row(
            now({**RESTARTED, "fault": HUNG}, {"mount_restarts": 1}),
            ("mount-hung",),
            "integration/test_faults_process.py::test_an_rclone_that_runs_and_answers_nothing",
        ),
        Row(
            now({**RUNS, "reason": of("mount", "mount-silent", "mount disk did not answer 1 liveness probe in a row")}),
            ("mount-silent",),
        ),
    ],
    "unmounted by somebody else": [
        Row(
            now({**RESTARTED, "fault": of("mount", "mount-dead", "mount disk is dead: unmounted")}, app=STARTING),
            ("mount-dead",),
            "integration/test_faults_process.py::test_somebody_else_unmounts",
        ),
        Row(now({**RESTARTED, "fault": EXITED}, app=STARTING), ("rclone-exited",)),
    ],
    "mountd killed, then started": [
        Row(
            now(app=STARTING),
            ("mountd-restarted-after-crash",),
            "integration/test_faults_process.py::test_mountd_itself_is_killed_and_started_again",
            Background(crash="the run that began at 1 did not stop cleanly"),
        )
    ],
    "bucket away": [
        Row(
            now({"backend": AWAY}),
            ("bucket-unreachable",),
            "integration/test_faults_bucket.py::test_the_bucket_is_away",
        )
    ],
    "bucket away at the boot": [
        Row(
            now({**ASKS, "backend": AWAY}, WAITING, STOPPED),
            ("bucket-unreachable",),
            "integration/test_api.py::test_probes_while_it_is_not_ready_and_when_it_is",
        )
    ],
    "bucket is a black hole": [
        Row(
            now({"backend": bucket("bucket-silent", "store: the store has not answered")}),
            ("bucket-silent",),
            "integration/test_faults_bucket.py::test_the_bucket_is_a_black_hole",
        )
    ],
    "only some requests fail": [
        Row(
            now({**RUNS, "reason": of("mount", "reads-failing", "reads through mount disk fail: SlowDown")}),
            ("reads-failing",),
        ),
        Row(
            now({"backend": bucket("bucket-slow", "store: the store asks for fewer requests: SlowDown")}),
            ("bucket-slow",),
            "integration/test_faults_bucket.py::test_a_part_of_the_bucket_fails",
        ),
    ],
    "credentials expire": [
        Row(
            now({"backend": bucket("credentials-expired", "store: the credentials have expired: ExpiredToken")}),
            ("credentials-expired",),
            "integration/test_faults_bucket.py::test_the_bucket_says_no",
        ),
        Row(now({"backend": bucket("access-denied", "store: the store refused the credentials")}), ("access-denied",)),
    ],
    "503, resets, bodies cut short": [
        Row(GOOD, ()),  # rclone tries again, and nothing is to be explained
        Row(now({"backend": SLOW}), ("bucket-slow",)),
    ],
    "5 s a request": [
        Row(now({"backend": SLOW}), ("bucket-slow",), "integration/test_faults_bucket.py::test_each_request_takes_5_s")
    ],
    "cache full, read-only, gone": [
        Row(
            now({**RUNS, "reason": of("rclone", "cache-full", "only 3 MiB are free"), "cache_broken": True}),
            ("cache-full",),
            "integration/test_faults_cache.py::test_somebody_fills_the_disk",
        ),
        Row(
            now({**RUNS, "reason": of("rclone", "cache-not-writable", "read-only file system")}),
            ("cache-not-writable",),
            "integration/test_bypass.py::test_the_disk_becomes_read_only",
        ),
        Row(
            now({**BACKOFF, "reason": of("rclone", "cache-taken", "another mountd uses it")}, WAITING, STOPPED),
            ("cache-taken",),
            "integration/test_faults_cache.py::test_the_directory_is_removed",
        ),
        Row(now({**RUNS, "reason": of("rclone", "cache-bypassed", "reads from the bucket")}), ("cache-bypassed",)),
        Row(now({**RUNS, "reason": of("rclone", "cache-silent", "its disk does not answer")}), ("cache-silent",)),
    ],
    "something else answers in its place": [
        Row(
            now({"backend": bucket("bucket-invalid", "what answers in the store's place is no object store")}),
            ("bucket-invalid",),
            "integration/test_faults_invalid.py::test_while_it_runs",
        ),
        Row(now({"backend": bucket("bucket-empty", "the bucket says that it is empty")}), ("bucket-empty",)),
        Row(now({"backend": bucket("bucket-error", "the bucket is in another region")}), ("bucket-error",)),
    ],
    "odd keys, archived or forbidden objects": [
        Row(
            now(model={**MISSING, "reason": ARCHIVED}, app=STOPPED),
            ("waiting-for-content",),
            "integration/test_odd_objects.py::test_a_first_version_that_is_archived_is_waited_for",
        ),
        Row(
            now({**ASKS, "reason": of("mount", "mount-not-proven", "access denied")}, WAITING, STOPPED),
            ("mount-not-proven",),
            "integration/test_odd_objects.py::test_a_bucket_that_may_be_listed_and_not_read_is_reported_without_a_loop",
        ),
        Row(
            now({**RUNS, "reason": of("mount", "reads-failing", "reads through mount disk fail: archived")}),
            ("reads-failing",),
        ),
    ],
    "bucket, content or version missing": [
        Row(
            now({**ASKS, "backend": bucket("bucket-missing", "store: no bucket", Health.MISSING)}, WAITING, STOPPED),
            ("bucket-missing",),
            "integration/test_faults_start.py::test_a_bucket_then_its_content_then_the_version_come_later",
        ),
        Row(
            now(model={**MISSING, "reason": NOT_THERE}, app=STOPPED),
            ("waiting-for-content",),
            "integration/test_first_content.py::test_an_empty_bucket_and_the_version_that_comes_later",
        ),
    ],
    "the bucket of results is away": [
        Row(
            now(outbox={"results": OutboxStatus("/o", "s:b", Health.DEGRADED, pending=2, reason=UNSENT)}),
            ("outbox-waiting",),
            "integration/test_outbox.py::test_an_outage_is_waited_out_and_what_is_removed_meanwhile_is_lost",
        )
    ],
    "any of them ends, the model mapped": [
        Row(now({**RESTARTED, "fault": KILLED}, {"mount_restarts": 1}), ("rclone-killed",)),
        Row(
            now(app=STARTING),
            ("mountd-restarted-after-crash",),
            background=Background(crash="the run that began at 1 did not stop cleanly"),
        ),
    ],
    "content of the live version replaced": [
        Row(
            now(model={"changed": of("link", "content-changed", "the content of v23 has changed", "hub")}),
            ("content-changed",),
            "integration/test_audit.py::test_content_that_changes_under_the_live_version",
        )
    ],
    "the machine may not mount": [
        Row(
            now(
                {**BACKOFF, "reason": of("rclone", "mount-refused", "fusermount3: Operation not permitted")},
                WAITING,
                STOPPED,
            ),
            ("mount-refused",),
            "integration/test_mount_refused.py::test_without_the_right_to_mount_the_flag_is_named",
        )
    ],
    "rclone cannot start": [
        Row(
            now({**BACKOFF, "reason": of("rclone", "rclone-cannot-start", "not found")}, WAITING, STOPPED),
            ("rclone-cannot-start",),
            "integration/test_faults_start.py::test_an_rclone_that_cannot_be_started_any_more",
        ),
        Row(
            now(
                {**BACKOFF, "state": State.FAILED, "reason": of("rclone", "rclone-usage", "unknown flag")},
                WAITING,
                STOPPED,
            ),
            ("rclone-usage",),
            "integration/test_faults_start.py::test_a_flag_that_rclone_refuses_is_no_reason_to_try_again",
        ),
        Row(now({**BACKOFF, "reason": EXITED}, WAITING, STOPPED), ("rclone-exited",)),
    ],
    "app dies or ignores signals": [
        Row(
            now(app={**STARTING, "fault": of("app", "app-killed", "webui ended with signal SIGKILL", "webui")}),
            ("app-killed",),
            "integration/test_faults_app.py::test_however_it_ends_it_is_back_and_nothing_else_restarts",
        ),
        Row(
            now(
                app={
                    **STOPPED,
                    "state": State.FAILED,
                    "health": Health.DEGRADED,
                    "reason": of("app", "app-failed", "5 crashes in 10 minutes", "webui"),
                }
            ),
            ("app-failed",),
        ),
        Row(
            now(
                app={
                    **STOPPED,
                    "state": State.BACKOFF,
                    "health": Health.DEGRADED,
                    "reason": of("app", "app-detached", "webui has detached from mountd", "webui"),
                }
            ),
            ("app-detached",),
            "integration/test_faults_app.py::test_one_that_detaches_is_reported",
        ),
    ],
    "SIGTERM in the middle of a start": [
        Row(now({**ASKS}, WAITING, STOPPED, stopping=True), ("stopping",)),
    ],
    "descriptors, processes, memory used up": [
        Row(
            now(lacks={"audit": of("mountd", "no-descriptors", "audit waits: no file descriptor left", "mountd")}),
            ("no-descriptors",),
            "integration/test_faults_resources.py::test_no_descriptor_is_left",
        ),
        Row(
            now(
                {**BACKOFF, "reason": of("rclone", "no-processes", "rclone can start no thread")},
                WAITING,
                STOPPED,
                lacks={"api": of("mountd", "no-processes", "api waits: no thread can be started", "mountd")},
            ),
            ("no-processes",),
            "integration/test_faults_resources.py::test_no_process_can_be_started",
        ),
        Row(now(lacks={"x": of("mountd", "no-memory", "x waits: no memory", "mountd")}), ("no-memory",)),
        Row(now(lacks={"x": of("mountd", "disk-full", "x waits: no room", "mountd")}), ("disk-full",)),
        Row(now(lacks={"x": of("mountd", "system-error", "x waits: refused", "mountd")}), ("system-error",)),
    ],
    "a bug in mountd": [
        Row(
            now(lacks={"disk": of("mountd", "bug", "bug in mountd: KeyError", "mountd")}),
            ("bug",),
        ),
        Row(now(app=STARTING, stopping=True), ("stopping",)),
    ],
    "the configuration cannot be read": [
        Row(
            now(config=ConfigStatus(source="/etc/m.yaml", problems=(Problem("apps.webui.comand", 7, "unknown"),))),
            ("config-broken",),
            "integration/test_reload_refused.py::test_a_broken_file_is_shown_and_heals",
        ),
        Row(now(config=ConfigStatus(source="/etc/m.yaml", incomplete="the journal is locked")), ("config-incomplete",)),
    ],
    "the wall clock jumps": [
        Row(GOOD, (), "integration/test_faults_clock.py::test_nothing_restarts_and_nothing_is_late"),
        Row(now({"backend": bucket("clock-skew", "store: RequestTimeTooSkewed")}), ("clock-skew",)),
    ],
}


def table() -> list[str]:
    """The first cell of each row of the table at a glance, as plain text."""
    page = (TOP / "docs" / "faults.md").read_text()
    section = page.partition("## At a glance\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[1:]
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell) for cell in cells if not cell.startswith("---")]
    return [cell.strip() for cell in plain]


def test_each_row_of_the_table_is_tested() -> None:
    assert list(ROWS) == table()


@pytest.mark.parametrize(
    ("fault", "number"), [(fault, number) for fault, rows in ROWS.items() for number in range(len(rows))]
)
def test_the_root_cause_of_a_fault_is_named(fault: str, number: int) -> None:
    row = ROWS[fault][number]
    found = explain(row.snapshot, row.background)
    assert (found.root.code if found.root else None) in (row.codes or (None,))
    if found.root is not None:
        assert found.root.text
        assert found.root.evidence or found.root.code == "stopping"
        assert found.root.command
        assert found.root.docs.startswith("docs/")


@pytest.mark.parametrize("real", [row.real for rows in ROWS.values() for row in rows if row.real])
def test_a_real_daemon_is_asked_in_the_test_that_is_named(real: str) -> None:
    file, _, name = real.partition("::")
    body = re.search(
        rf"^(async )?def {name}\(.*?(?=^[^\s)]|\Z)", (TOP / "tests" / file).read_text(), re.MULTILINE | re.DOTALL
    )
    assert body is not None, real
    assert "until_explained(" in body[0] or "explanation(" in body[0], f"{real} does not ask"
