"""Whatever a snapshot holds: what is not well is explained, each root once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mountd.status.causes import CAUSES, SEEN
from mountd.status.explain import explain
from mountd.status.grounds import Background
from mountd.status.snapshot import (
    AppStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    RemoteStatus,
    Snapshot,
    State,
    Sync,
)
from tests.unit.test_explain import SWITCH, T0, T1, reason

reasons = st.none() | st.sampled_from(sorted(CAUSES)).map(reason)
healths = st.sampled_from(Health)
remotes = st.builds(RemoteStatus, healths, reasons)
mounts = st.builds(
    MountStatus,
    path=st.just("/mnt/x"),
    remote=st.sampled_from(["store:a", "other:b"]),
    state=st.sampled_from(State),
    stage=st.sampled_from(MountStage),
    health=healths,
    restarts=st.integers(0, 2),
    since=st.sampled_from(["", T0, T1, "nonsense"]),
    backend=remotes,
    reason=reasons,
    fault=reasons,
    gone=st.booleans(),
    cache_broken=st.booleans(),
    cache_stops_apps=st.booleans(),
)
models = st.builds(
    ModelStatus,
    mount=st.sampled_from(["disk", "plain"]),
    link=st.just("/srv/hub"),
    stage=st.sampled_from(ModelStage),
    health=healths,
    current=st.sampled_from([None, "v22", "v23"]),
    desired=st.sampled_from([None, "v22", "v23"]),
    sync=st.sampled_from(Sync),
    reason=reasons,
    changed=reasons,
    suspended=st.sampled_from([None, "tina"]),
    pinned=st.booleans(),
    automatic=st.booleans(),
    mount_restarts=st.integers(-1, 2),
)
apps = st.builds(
    AppStatus,
    needs=st.sets(st.sampled_from(["disk", "plain", "hub", "voice"])).map(tuple),
    state=st.sampled_from(State),
    health=healths,
    since=st.sampled_from(["", T0, T1]),
    mounts=st.dictionaries(st.sampled_from(["disk", "gone"]), st.integers(0, 2)),
    follows_remounts=st.booleans(),
    reason=reasons,
    fault=reasons,
    stopped=st.sampled_from([None, "tina"]),
)
operations = st.lists(
    st.builds(
        lambda kind, of: replace(SWITCH, kind=kind, model=of),
        st.sampled_from(["switch", "drill", "warm"]),
        st.sampled_from(["hub", "disk"]),
    ),
    max_size=2,
)
snapshots = st.builds(
    Snapshot,
    mounts=st.fixed_dictionaries({"disk": mounts, "plain": mounts}),
    models=st.fixed_dictionaries({"hub": models, "voice": models}) | st.just({}),
    apps=st.just({}) | st.dictionaries(st.sampled_from(["webui", "api"]), apps),
    operations=operations.map(tuple),
    stopping=st.booleans(),
    journal=reasons,
    lacks=st.dictionaries(st.sampled_from(["api", "audit"]), reasons.filter(bool)),
)


@given(snapshots, st.sampled_from(["", "it did not stop"]))
def test_whatever_is_not_well_is_explained(snapshot: Snapshot, crash: str) -> None:
    if not snapshot.models:
        kept = {name: replace(app, needs=()) for name, app in snapshot.apps.items()}
        snapshot = replace(snapshot, apps=kept)
    found = explain(snapshot, Background(crash=crash))
    if not found.is_well:
        assert found.root is not None
    if found.root is None:
        assert (found.chain, found.others) == ((), ())
        return
    assert found.chain[0].code in SEEN
    assert len(found.chain) >= 2
    assert (found.chain[-1].code, found.chain[-1].object) == (found.root.code, found.root.object)
    roots = [(each.code, each.object) for each in (found.root, *found.others)]
    assert len(roots) == len(set(roots))
    assert all("{" not in each.text + each.command for each in (found.root, *found.others))
