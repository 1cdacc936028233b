"""Metrics of models: which versions, how much of them is here, and whether link and wanted version agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.metrics.families import counter, gauge, info, states
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import ModelStatus, Sync

MODEL = ("model",)
ROLES = ("current", "previous", "desired")


class ModelCollector(Collector):
    """`quarantined` is replaced before each scrape: how many contents, by model; None: not known at the moment."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.quarantined: Mapping[str, int] | None = None

    def collect(self) -> Iterator[Metric]:
        models, meters = self._board.snapshot.models, self._board.meters.models
        yield gauge(
            "mountd_model_linked",
            "1 when the link leads to a version that can be read",
            MODEL,
            (((name,), model.linked) for name, model in models.items()),
        )
        yield info(
            "mountd_model_version_info",
            "The versions of the model: current (live), previous and desired",
            ("model", "version", "role"),
            (
                (name, version, role)
                for name, model in models.items()
                for role in ROLES
                if (version := getattr(model, role))
            ),
        )
        yield states(
            "mountd_model_sync_state",
            "1 for whether the live version is the desired one, 0 for the other answers",
            "model",
            Sync,
            ((name, model.sync) for name, model in models.items()),
        )
        yield gauge(
            "mountd_model_suspended",
            "1 when a person has paused automatic changes or holds another version than the declared one",
            MODEL,
            (((name,), bool(model.suspended or model.overridden)) for name, model in models.items()),
        )
        yield gauge(
            "mountd_model_sync_waiting",
            "1 while the model is out of sync for something that passes by itself: a switch runs or awaits its window",
            MODEL,
            (((name,), readiness.is_sync_waiting(self._board.snapshot, name)) for name in models),
        )
        yield gauge(
            "mountd_model_warm_ratio",
            "How much of the data that are to be loaded is on this machine, from 0 to 1",
            MODEL,
            (((name,), _warm(model)) for name, model in models.items()),
        )
        counts = self.quarantined
        yield gauge(
            "mountd_model_quarantined_versions",
            "Versions that are refused because they failed; absent while the journal cannot be read",
            MODEL,
            (((name,), counts.get(name, 0)) for name in models) if counts is not None else [],
        )
        yield gauge(
            "mountd_link_drifted",
            "1 when the link is not as mountd placed it",
            MODEL,
            (((name,), model.drift.reason is not None) for name, model in models.items()),
        )
        yield counter(
            "mountd_link_drifts_total",
            "How often the link was found changed by something else",
            MODEL,
            (((name,), meters[name].drifts.total) for name in models),
        )
        yield counter(
            "mountd_link_heals_total",
            "How often mountd has put the link right",
            MODEL,
            (((name,), meters[name].heals.total) for name in models),
        )
        yield gauge(
            "mountd_model_content_changed",
            "1 when the live version no longer holds in the bucket what it was made live with",
            MODEL,
            (((name,), model.changed is not None) for name, model in models.items()),
        )


def _warm(model: ModelStatus) -> float:
    loading = model.loading
    if loading is not None and loading.bytes_total:
        return min(1.0, loading.bytes_done / loading.bytes_total)
    return model.warmed_percent / 100
