"""The reasons of models and apps: what each says to people."""

from __future__ import annotations

from mountd.i18n import N_
from mountd.status.cause import FAULTS, GITOPS, SECURITY, SWITCHING, WAITS, Cause

_NOT_THERE = FAULTS + "bucket-content-or-version-is-not-there"
_CACHE = FAULTS + "the-caches-disk-is-full-read-only-or-gone"
_APP = FAULTS + "the-app-dies-is-deaf-or-leaves-children"
_LINK = SWITCHING + "the-link-the-content-and-the-cache"
_GATES = SWITCHING + "gates-and-watch"
_GPU = "docs/container.md#before-the-app-starts"
_LOGS = "mountd logs {object}"
_DOCTOR = "mountd doctor"
_SHOW = "mountd config show"

LINK: dict[str, Cause] = {
    "model-loading": Cause(
        "link",
        N_("Model {object} is being loaded."),
        N_("Wait: status says how far it is."),
        "mountd status",
        "docs/loading.md#how-far-it-is",
    ),
    "model-unavailable": Cause("link", N_("Model {object} cannot be read now."), WAITS, "mountd versions", _NOT_THERE),
    "waiting-for-content": Cause(
        "link",
        N_("The bucket does not hold a complete version of model {object} as it is wanted."),
        N_("Upload what is missing, or correct the version; mountd goes live by itself when it is complete."),
        "mountd versions",
        _NOT_THERE,
    ),
    "link-blocked": Cause(
        "link",
        N_("The link of model {object} cannot be placed: something else is there."),
        N_("mountd never deletes data: look what it is, then move it away."),
        _DOCTOR,
        _LINK,
    ),
    "link-drifted": Cause(
        "link",
        N_("Another program changed the link of model {object}."),
        N_("Find what changes it; mountd puts it right unless it is paused or sync.self_heal is false."),
        "mountd diff",
        _LINK,
    ),
    "content-changed": Cause(
        "link",
        N_("The content of the live version of model {object} has changed in the bucket."),
        N_("Put the former files back, or publish what is wanted under another name and switch to it."),
        "mountd versions",
        _LINK,
    ),
    "switch-waits": Cause(
        "link",
        N_("Another version of model {object} is wanted, and mountd may not switch by itself now."),
        N_("Resume automatic changes, wait for the window, or switch by hand."),
        "mountd diff",
        GITOPS + "sync-windows",
    ),
    "switch-failed": Cause(
        "link",
        N_("Model {object} cannot be switched to the wanted version."),
        N_("Fix the cause, or declare another version."),
        "mountd history --model {object}",
        _GATES,
    ),
    "suspended": Cause(
        "link",
        N_("Automatic changes of model {object} are paused by a person."),
        N_("mountd resume ends the pause."),
        "mountd resume --model {object}",
        GITOPS + "sync-windows",
    ),
    "sync-suspended": Cause(
        "link",
        N_("A person has switched model {object} by hand, against its source."),
        N_("mountd resume follows the source again."),
        "mountd resume --model {object}",
        GITOPS + "case-by-case",
    ),
    "desired-invalid": Cause(
        "link",
        N_("The source of the wanted version of model {object} does not hold a usable version."),
        N_("Correct what stands there; what is live stays live."),
        "mountd diff",
        GITOPS + "case-by-case",
    ),
    "desired-unreachable": Cause(
        "link",
        N_("The source of the wanted version of model {object} cannot be read."),
        N_("What is live stays live, and mountd tries again by itself."),
        _DOCTOR,
        GITOPS + "case-by-case",
    ),
    "desired-refused": Cause(
        "link",
        N_("The Git server refuses mountd the wanted version of model {object}."),
        N_("Check the key or token of the source, and its right to read."),
        _DOCTOR,
        GITOPS + "a-git-repository",
    ),
}

APP: dict[str, Cause] = {
    "waiting-for-mount": Cause("app", N_("{object} is not started, as a mount that it needs is not ready."), "", _LOGS),
    "waiting-for-model": Cause("app", N_("{object} is not started, as a model that it needs is not ready."), "", _LOGS),
    "waiting-for-cache": Cause(
        "app",
        N_("{object} is stopped, as the cache of its mount cannot be used."),
        N_("Repair the cache and it starts by itself; with cache.on_failure: keep it runs meanwhile."),
        _DOCTOR,
        _CACHE,
    ),
    "app-starting": Cause(
        "app", N_("{object} has started and is not ready yet."), N_("Wait, and see what it says."), _LOGS, _APP
    ),
    "app-behind-remount": Cause(
        "app",
        N_("The mount of {object} was replaced, and files that it has open there are dead."),
        N_("mountd restarts it by itself, unless its restart.after leaves out remount."),
        "mountd restart {object}",
        FAULTS + "rclone-is-killed",
    ),
    "app-without-mount": Cause(
        "app",
        N_("{object} runs, but its mount has been down for more than a minute."),
        "",
        _LOGS,
        FAULTS + "rclone-is-killed",
    ),
    "app-stopped": Cause(
        "app",
        N_("{object} was stopped by a person."),
        N_("Start it when it is to run again; a restart of mountd starts it, too."),
        "mountd start {object}",
        SWITCHING + "an-app-that-is-stopped",
    ),
    "app-exited": Cause(
        "app", N_("{object} ended by itself."), N_("See its last lines."), "mountd logs {object} --previous", _APP
    ),
    "app-killed": Cause(
        "app",
        N_("{object} was killed by another process, or by the kernel."),
        N_("See dmesg and its last lines; mountd restarts it."),
        "mountd logs {object} --previous",
        _APP,
    ),
    "app-out-of-memory": Cause(
        "app",
        N_("The kernel ended {object}: memory is used up."),
        N_("Give it a larger limits.memory, or see what else runs here."),
        "mountd logs {object} --previous",
        _APP,
    ),
    "app-failed": Cause(
        "app",
        N_("{object} ended too often, and mountd does not start it any more."),
        N_("Correct the cause, then: mountd restart {object}."),
        "mountd logs {object} --previous",
        _APP,
    ),
    "app-down": Cause("app", N_("{object} is down."), WAITS, _LOGS, _APP),
    "app-detached": Cause(
        "app",
        N_("{object} went into the background, where mountd cannot look after it."),
        N_("Run it in the foreground: no &, nohup, setsid or --daemon."),
        _SHOW,
        _APP,
    ),
    "app-not-ready": Cause(
        "app",
        N_("{object} did not become ready in its time."),
        N_("See what it says; where it only needs longer, raise ready.timeout."),
        _LOGS,
        _APP,
    ),
    "app-stuck": Cause(
        "app",
        N_("{object} cannot be stopped: it is stuck in the kernel."),
        N_("See what it waits for: cat /proc/PID/wchan; mountd restarts it when it is gone."),
        _LOGS,
        _APP,
    ),
    "app-command-not-found": Cause(
        "app",
        N_("The command of {object} does not exist."),
        N_("Set its command to a program on PATH, or to an absolute path."),
        _DOCTOR,
        _APP,
    ),
    "app-cannot-execute": Cause(
        "app",
        N_("The command of {object} cannot be executed."),
        N_("Check that it is a program, its first line (#!), its directory, and that its user may execute it."),
        _DOCTOR,
        _APP,
    ),
    "port-taken": Cause(
        "app",
        N_("Another program has the port of {object}."),
        N_("Stop that program, or give the app another port."),
        _DOCTOR,
        _APP,
    ),
    "no-user": Cause(
        "app",
        N_("The user that {object} is to run as does not exist."),
        N_("Create it, or correct apps.*.user."),
        _DOCTOR,
        SECURITY + "who-runs-as-whom",
    ),
    "preflight-failed": Cause(
        "app", N_("The check before {object} starts has failed."), N_("See what the command said."), _LOGS, _GPU
    ),
    "preflight-killed": Cause(
        "app",
        N_("The check before {object} starts was killed."),
        N_("See dmesg."),
        _LOGS,
        _GPU,
    ),
    "preflight-not-run": Cause(
        "app",
        N_("The check before {object} starts cannot be run."),
        N_("Correct preflight.command of the app."),
        _DOCTOR,
        _GPU,
    ),
    "gpu-memory": Cause(
        "app", N_("The GPU of {object} has too little memory free."), N_("See who uses it: nvidia-smi."), _DOCTOR, _GPU
    ),
    "gpu-unavailable": Cause(
        "app",
        N_("The GPU that {object} needs cannot be used."),
        N_("See nvidia-smi, and what is passed to the container."),
        _DOCTOR,
        _GPU,
    ),
    "gpu-missing": Cause(
        "app",
        N_("The GPU that {object} is to use does not exist."),
        N_("Correct preflight.gpu of the app by the list of nvidia-smi -L, or pass the GPU to the container."),
        _DOCTOR,
        _GPU,
    ),
    "gpu-hidden": Cause(
        "app",
        N_("{object} does not see the GPU that it is to use."),
        N_("Correct CUDA_VISIBLE_DEVICES of the app, or its preflight.gpu."),
        _DOCTOR,
        _GPU,
    ),
    "gpu-unknown": Cause(
        "app",
        N_("The GPU of {object} does not say how much memory is free."),
        N_("It shares the memory of the machine: leave gpu_memory out of the app's preflight."),
        _DOCTOR,
        _GPU,
    ),
    "no-nvidia-smi": Cause(
        "app",
        N_("nvidia-smi is missing, so that the GPU of {object} cannot be checked."),
        N_("Install the driver's tools."),
        _DOCTOR,
        _GPU,
    ),
}
