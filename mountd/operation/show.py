"""Shows how far each operation is, on the board and in the log."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from mountd.journal.journal import OperationRecord
from mountd.status.board import Board
from mountd.status.snapshot import Operation

log = structlog.get_logger()

ETA_AFTER_S = 1.0
"""Before that the speed is unknown."""


class Display:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._shown: dict[int, Operation] = {}

    def step(self, record: OperationRecord, step: str, limit_s: float | None = None) -> None:
        """The operation has begun this step, which may take `limit_s` seconds. Repeated calls change nothing."""
        if record.id in self._shown and self._shown[record.id].step == step:
            return
        log.info("operation step", operation=record.id, kind=record.kind, step=str(step), version=record.to_version)
        self._shown[record.id] = Operation(
            id=record.id,
            kind=record.kind,
            model=record.model,
            from_version=record.from_version,
            to_version=record.to_version,
            operator=record.operator,
            source=record.source,
            step=str(step),
            started=record.started,
            began=time.monotonic(),
            limit_s=limit_s,
        )
        self._publish()

    def progress(
        self, id_: int, done: float, total: float, bytes_per_s: float | None = None, *, has_eta: bool = True
    ) -> None:
        """How much of the present step is done; shown when the percent changes.

        `has_eta` False: what is done says nothing of how long the rest takes.
        """
        known = self._shown.get(id_)
        percent = 100 if total <= 0 else max(0, min(100, int(100 * done / total)))
        if known is None or known.percent == percent:
            return
        took_s = time.monotonic() - known.began
        has_eta = has_eta and done > 0 and took_s >= ETA_AFTER_S
        eta_s = round(took_s * max(0.0, total - done) / done, 1) if has_eta else None
        self._shown[id_] = replace(known, percent=percent, eta_s=eta_s, bytes_per_s=bytes_per_s)
        self._publish()

    def end(self, id_: int) -> None:
        self._shown.pop(id_, None)
        self._publish()

    def _publish(self) -> None:
        self._board.set_operations(*self._shown.values())
