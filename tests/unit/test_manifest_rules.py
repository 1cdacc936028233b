"""One test for each rule that pods with mountd have to keep, and for what must be the same in manifests and code."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from mountd.api.routes import Routes
from mountd.daemon.shutdown import stop_times
from mountd.settings.load import DEFAULT_CONFIG
from mountd.settings.secret import SecretRef
from tests.support.manifests import (
    BUILT,
    DEPLOY,
    SERVING,
    SHARING,
    Object,
    Workload,
    all_workloads,
    build,
    of_kind,
    raw,
    settings,
    within,
    workloads,
)
from tests.support.monitoring import documented

SPARE_S = 20.0
"""Between the sum of the stop times and the grace period: a machine may be busy."""
PROBES = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
FOLLOW = "/opt/follow-model/follow-model.sh"
APP_METRICS = {"tts_request_seconds_bucket", "tts_requests_total"}
"""The app's own, which the manifests say of them."""


def serving(name: str) -> Workload:
    (found,) = (each for each in workloads(build(name)) if each.mountd)
    return found


def consumers() -> list[tuple[str, Workload, Object]]:
    return [
        (name, workload, container)
        for name in SHARING
        for workload in workloads(build(name))
        for container in workload.containers
        if container.get("command", [""])[0] == FOLLOW
    ]


def test_never_by_sub_path() -> None:
    """A file that is mounted by subPath keeps its first content for the life of the pod."""
    for name, workload in all_workloads():
        for container in workload.containers:
            for mount in container.get("volumeMounts", []):
                assert not {"subPath", "subPathExpr"} & mount.keys(), (name, mount)


def test_fuse_is_permitted_and_not_only_shown() -> None:
    """By a privileged container, or by a device plugin with the right to mount; never by a hostPath of /dev/fuse."""
    for name, workload in all_workloads():
        for volume in workload.volumes.values():
            assert not volume.get("hostPath", {}).get("path", "").startswith("/dev/fuse"), name
        if container := workload.mountd:
            context = container["securityContext"]
            if context.get("privileged"):
                continue
            assert container["resources"]["limits"]["squat.ai/fuse"] == "1"
            assert "SYS_ADMIN" in context["capabilities"]["add"]
            assert context["appArmorProfile"] == {"type": "Unconfined"}
    (plugin,) = workloads(build("kubernetes/components/fuse-device-plugin/node"))
    arguments = " ".join(plugin.containers[0]["args"])
    assert "--domain=squat.ai" in arguments
    assert '"name": "fuse"' in arguments


@pytest.mark.parametrize("name", SERVING)
def test_mountd_and_the_app_are_not_root(name: str) -> None:
    """They are the user of the image, and its volumes are theirs."""
    workload = serving(name)
    assert workload.mountd is not None
    context = workload.pod["securityContext"]
    image = DEPLOY / "container/Containerfile"
    if image.exists():
        assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in image.read_text()
    assert (context["runAsNonRoot"], context["fsGroup"]) == (True, context["runAsGroup"])
    assert "runAsUser" not in workload.mountd["securityContext"]
    if not workload.mountd["securityContext"].get("privileged"):
        assert workload.mountd["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert all(app.user is None for app in settings(build(name)).apps.values())


def test_both_ways_to_fuse_are_written_out() -> None:
    contexts = [(workload.mountd or {}).get("securityContext") for _, workload in all_workloads()]
    assert {bool(each.get("privileged")) for each in contexts if each} == {True, False}


def test_privileges_may_be_gained_where_mountd_mounts() -> None:
    """`allowPrivilegeEscalation: false` is no_new_privs: fusermount3 could not mount, and the API server refuses it
    beside `privileged` and SYS_ADMIN. Every other container has it."""
    for name, workload in all_workloads():
        for container in workload.containers:
            context = container["securityContext"]
            may = context.get("allowPrivilegeEscalation", True)
            assert may == (container is workload.mountd or context.get("privileged", False)), (name, container["name"])


def test_what_does_not_roll_is_not_rolled() -> None:
    """A claim that one pod holds: the old pod ends before the new one starts, or each pod has volumes of its own."""
    for name, workload in all_workloads():
        kind, spec = workload.item["kind"], workload.item["spec"]
        shared = [each for each in workload.volumes.values() if "persistentVolumeClaim" in each]
        if kind == "Deployment" and name != "argocd/canary-flagger":
            assert spec["strategy"] == {"type": "Recreate"}, name
        if shared:
            assert kind == "Deployment"
        if kind == "StatefulSet":
            assert spec["podManagementPolicy"] == "Parallel", "a broken revision would wait for a person"


@pytest.mark.parametrize("name", SERVING)
def test_cache_and_state_outlive_a_container(name: str) -> None:
    found = settings(build(name))
    workload = serving(name)
    mounts = workload.mounts(workload.mountd or {})
    assert str(found.state) in mounts
    for mount in found.mounts.values():
        (path,) = (each for each in mounts if within(mount.cache.dir, each))
        assert mounts[path]["name"] == "cache"
    for volume in ("cache", "state"):
        assert {"made", "ephemeral"} & workload.volumes[volume].keys(), "one for each pod"
    cache = workload.volumes["cache"]
    claim = cache.get("made") or cache["ephemeral"]["volumeClaimTemplate"]["spec"]
    limit = raw(build(name))["mounts"]["storage"]["cache"]["max_size"]
    assert int(claim["resources"]["requests"]["storage"].removesuffix("Gi")) > int(limit.removesuffix("G"))


def test_canary_pods_have_volumes_and_a_version_of_their_own() -> None:
    for name in ("argocd/canary-rollouts", "argocd/canary-flagger"):
        assert all("ephemeral" in serving(name).volumes[volume] for volume in ("cache", "state"))
    (rollout,) = of_kind(build("argocd/canary-rollouts"), "Rollout")
    assert "workloadRef" not in rollout["spec"]


@pytest.mark.parametrize("name", SERVING)
def test_a_pod_that_is_made_for_a_version_knows_no_former_one(name: str) -> None:
    """Else it would serve that one first, and be ready with it: the next pod would be replaced, whatever comes then."""
    is_switched_in_place = name in ("kubernetes/overlays/dev", "kubernetes/overlays/staging")
    state = serving(name).volumes["state"]
    assert state.keys() & {"made", "ephemeral"} == ({"made"} if is_switched_in_place else {"ephemeral"})


def test_flagger_changes_no_running_pod() -> None:
    """It would copy what it tracks into a ConfigMap with a fixed name, which all stable pods read at once."""
    maps = of_kind(build("argocd/canary-flagger"), "ConfigMap")
    assert {each["metadata"]["annotations"]["flagger.app/config-tracking"] for each in maps} == {"disabled"}
    assert all(each["immutable"] for each in maps)


def test_disruption_budgets_only_for_several_replicas() -> None:
    for name in BUILT:
        objects = build(name)
        budgets = of_kind(objects, "PodDisruptionBudget")
        counts = [each.replicas for each in workloads(objects) if each.item["kind"] == "StatefulSet"]
        assert bool(budgets) == any(count > 1 for count in counts), name
        for budget in budgets:
            selected = budget["spec"]["selector"]["matchLabels"].items()
            assert any(selected <= each.labels.items() for each in workloads(objects))


@pytest.mark.parametrize("name", [*SERVING, *SHARING])
def test_the_grace_period_is_above_the_drain(name: str) -> None:
    """Above what happens before SIGTERM and the sum of all that mountd does after it."""
    workload = serving(name)
    assert workload.mountd is not None
    before = workload.mountd.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed_s = before + stop_times(settings(build(name))).total_s
    assert workload.pod["terminationGracePeriodSeconds"] >= needed_s + SPARE_S
    if name in SERVING:
        assert before > 0, "load balancers learn first"


@pytest.mark.parametrize("name", [*SERVING, *SHARING])
def test_the_resources_of_the_gpu_container(name: str) -> None:
    containers = [each for workload in workloads(build(name)) for each in workload.containers]
    (found,) = (each["resources"] for each in containers if "nvidia.com/gpu" in each["resources"]["limits"])
    assert found["requests"] == {"cpu": "2", "memory": "12Gi"}
    assert {"memory": "16Gi", "nvidia.com/gpu": "1"}.items() <= found["limits"].items()
    assert "cpu" not in found["limits"], "a throttled CPU makes every synthesis slow"


def test_every_container_says_what_it_needs() -> None:
    for name, workload in all_workloads():
        for container in workload.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), (name, container["name"])
            assert "memory" in resources["limits"]


def test_probes_ask_mountd_what_its_code_answers() -> None:
    served = {route.path for route in Routes.probes(Routes.__new__(Routes))}
    for name in (*SERVING, *SHARING):
        container = serving(name).mountd
        assert container is not None
        assert {kind: container[kind]["httpGet"]["path"] for kind in PROBES} == PROBES
        assert set(PROBES.values()) <= served
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        host, port = settings(build(name)).http.address
        assert {container[kind]["httpGet"]["port"] for kind in PROBES} == {"mountd"}
        assert (host, port) == ("0.0.0.0", ports["mountd"]), "the kubelet asks the pod's own address"
        assert container["readinessProbe"]["timeoutSeconds"] <= container["readinessProbe"]["periodSeconds"]
    for name in BUILT:
        for monitor in of_kind(build(name), "PodMonitor"):
            (path,) = (each["path"] for each in monitor["spec"]["podMetricsEndpoints"] if each["port"] == "mountd")
            assert path in served


def test_waiting_for_content_restarts_nothing() -> None:
    """The probes that restart a container ask whether mountd runs, never whether the model is there."""
    assert {PROBES[kind] for kind in ("startupProbe", "livenessProbe")} == {"/healthz"}


@pytest.mark.parametrize("name", [*SERVING, *SHARING])
def test_paths_are_those_of_the_configuration(name: str) -> None:
    """Each file that the configuration names is put there by a volume, as a whole directory."""
    workload = serving(name)
    assert workload.mountd is not None
    files = workload.files(workload.mountd)
    assert str(DEFAULT_CONFIG.parent) in files, "where mountd looks without being told"
    found = settings(build(name))
    data = raw(build(name))
    options = [value for remote in found.remotes.values() for value in remote.options.values()]
    refs = [str(value.file) for value in options if isinstance(value, SecretRef)]
    assert len(refs) == 2
    named = {*refs, *([data["http"]["tokens"]["file"]] if "tokens" in data["http"] else [])}
    assert named <= files
    as_root = workload.mountd["securityContext"].get("runAsUser") == 0
    mode = workload.volumes["secrets"]["projected"]["defaultMode"]
    assert mode == (0o400 if as_root else 0o440), "of mountd's user alone, to which fsGroup hands them"


def test_ports_of_policies_and_apps() -> None:
    for name in SERVING:
        container = serving(name).mountd
        assert container is not None
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        (policy,) = of_kind(build(name), "NetworkPolicy")
        assert {each["port"] for rule in policy["spec"]["ingress"] for each in rule["ports"]} == set(ports.values())
        app = settings(build(name)).apps["webui"]
        assert app.ready is not None
        assert f":{ports['web']}/" in str(app.ready.http)
        assert str(ports["web"]) in app.command


def test_a_native_sidecar_starts_first_and_stops_last() -> None:
    workload = serving("kubernetes/variants/sidecar")
    (first, *_) = workload.pod["initContainers"]
    assert first == workload.mountd
    assert first["restartPolicy"] == "Always"
    assert len(workload.pod["containers"]) > 1, "it serves several"


def test_only_a_privileged_container_puts_mounts_where_others_see_them() -> None:
    for name, workload in all_workloads():
        for container in workload.containers:
            for mount in container.get("volumeMounts", []):
                if mount.get("mountPropagation") == "Bidirectional":
                    assert container["securityContext"]["privileged"], name
                    assert container is workload.mountd


def test_consumers_see_mounts_that_come_later_and_cannot_touch_them() -> None:
    found = consumers()
    assert {name for name, _, _ in found} == set(SHARING)
    for name, workload, container in found:
        mount = workload.mounts(container)["/models"]
        assert (mount["mountPropagation"], mount["readOnly"]) == ("HostToContainer", True)
        context = container["securityContext"]
        assert isinstance(context, dict)
        assert context["runAsNonRoot"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        of_mountd = settings(build(name))
        # The parent directory is shared, never the mount point: only so a mount that is replaced is seen, and a kubelet
        # never has to look at a dead one.
        for path in (of_mountd.mounts["storage"].path, of_mountd.models["cache_hub"].link):
            assert PurePosixPath(path).parent == PurePosixPath("/models")
        server = serving(name)
        shared = server.volumes[server.mounts(server.mountd or {})["/models"]["name"]]
        assert workload.volumes[mount["name"]] == shared


def test_consumers_are_restarted_when_their_mount_or_version_is_replaced() -> None:
    for name, _, container in consumers():
        file = container["command"][2]
        probe = container["livenessProbe"]
        assert container["command"] == [FOLLOW, "run", file]
        assert probe["exec"]["command"] == [FOLLOW, "check", file]
        model = settings(build(name)).models["cache_hub"]
        assert PurePosixPath(file).parent == PurePosixPath(model.link)
        assert PurePosixPath(file).name in model.required


def test_one_mount_a_node_is_replaced_only_on_purpose() -> None:
    workload = serving("kubernetes/variants/node")
    assert workload.item["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_no_pod_has_rights_that_it_does_not_need() -> None:
    for name, workload in all_workloads():
        assert workload.pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & workload.pod.keys()
        for container in workload.containers:
            assert "envFrom" not in container
            assert all("secretKeyRef" not in str(each) for each in container.get("env", [])), "secrets are files"


def test_queries_name_metrics_that_there_are() -> None:
    """mountd's own, or those of the app that the files say are the app's."""
    queries = []
    for name in ("argocd/canary-rollouts", "argocd/canary-flagger"):
        for template in of_kind(build(name), "AnalysisTemplate"):
            queries += [each["provider"]["prometheus"]["query"] for each in template["spec"]["metrics"]]
        queries += [each["spec"]["query"] for each in of_kind(build(name), "MetricTemplate")]
    used = {word for query in queries for word in re.findall(r"\b(\w+)\{", query)}
    assert used == {"mountd_ready"} | APP_METRICS
    assert "mountd_ready" in documented()
    for path in ("canary-rollouts/analysis.yaml", "canary-flagger/metrics.yaml"):
        assert "are the app's own" in " ".join((DEPLOY / "argocd" / path).read_text().split()).replace("# ", "")
