"""Metrics of mountd as a whole: is it ready, how healthy, what is wrong, which mountd is it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd import __version__
from mountd.api.metrics.families import counter, flag, gauge, info
from mountd.journal.journal import Journal
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import Health


class ServiceCollector(Collector):
    """Reads the board at each scrape, so a metric never lags behind the status."""

    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        snapshot, meters = self._board.snapshot, self._board.meters
        health = readiness.health(snapshot)
        yield flag("mountd_ready", "1 when all that is configured is ready: /readyz", readiness.is_ready(snapshot))
        yield gauge(
            "mountd_health",
            "1 for the present health, 0 for the others",
            ("health",),
            (((each.value,), each is health) for each in Health),
        )
        reasons = Counter((each.code, each.layer) for each in readiness.reasons(snapshot))
        yield gauge(
            "mountd_reasons",
            "Reasons why something is not well, by their code; none while all is well",
            ("code", "layer"),
            reasons.items(),
        )
        yield info(
            "mountd_build_info",
            "Which mountd, rclone and Python run here",
            ("version", "rclone", "python"),
            [(__version__, meters.rclone, platform.python_version())],
        )
        config = snapshot.config
        yield flag(
            "mountd_config_valid",
            "1 when the configuration file as it is now is in use; 0: it has problems, or is partly in effect",
            not config.problems and not config.incomplete,
        )
        yield flag(
            "mountd_journal_up",
            "1 when the journal is well: it can be written, and none was lost",
            snapshot.journal is None,
        )
        yield counter(
            "mountd_journal_errors_total",
            "Calls of the journal that failed",
            (),
            [((), self._journal.errors)],
        )
        yield flag("mountd_event_streams", "Clients that follow events now", meters.event_streams)
        expires = meters.certificate_expires
        yield gauge(
            "mountd_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of the TCP port expires, in seconds since 1970; absent without TLS",
            (),
            [((), expires)] if expires is not None else [],
        )
