// The daemon's words in the language of the page: health, states, steps, results, and what its codes mean.

import { current, t } from "./i18n.js";

export const TONES = {
  Healthy: "ok", Suspended: "idle", Progressing: "busy", Missing: "warn", Degraded: "bad", Unknown: "warn",
};
export const tone = (health) => TONES[health] ?? "warn";

// A table of words, made once for each language; a word that is not in it stays as it is.
function table(make) {
  let language;
  let words;
  return (word) => {
    if (language !== current()) [language, words] = [current(), make()];
    return Object.hasOwn(words, word ?? "") ? words[word] : word ?? "";
  };
}

export const health = table(() => ({
    Healthy: t("Healthy"), Suspended: t("Suspended"), Progressing: t("Progressing"), Missing: t("Missing"),
    Degraded: t("Degraded"), Unknown: t("Unknown"),
  }));

export const state = table(() => ({
    stopped: t("stopped"), starting: t("starting"), running: t("running"), stopping: t("stopping"),
    cleaning: t("cleaning up"), backoff: t("waiting to restart"), failed: t("failed"),
  }));

export const stage = table(() => ({
    preflight: t("checking the machine"), spawned: t("rclone started"), mounted: t("mounted"), answering: t("answering"),
    ready: t("ready"), waiting: t("waiting"), listed: t("loading names"), warmed: t("warmed"), linked: t("linked"),
  }));

export const sync = table(() => ({ Synced: t("in sync"), OutOfSync: t("out of sync"), Unknown: t("not known") }));

export const layer = table(() => ({ bucket: t("bucket"), rclone: t("rclone"), mount: t("mount"), link: t("link"), app: t("app") }));

export const kind = table(() => ({
    switch: t("switch"), rollback: t("rollback"), warm: t("warm"), schedule: t("scheduled switch"), drill: t("drill"),
  }));

export const result = table(() => ({
    committed: t("committed"), "rolled-back": t("rolled back"), refused: t("refused"), failed: t("failed"),
    cancelled: t("cancelled"), interrupted: t("interrupted"), passed: t("passed"), done: t("done"), missed: t("missed"),
  }));

const RESULTS = {
  committed: "ok", passed: "ok", done: "ok", "rolled-back": "warn", interrupted: "warn", missed: "warn", cancelled: "idle", refused: "bad", failed: "bad",
};
export const resultTone = (word) => RESULTS[word] ?? "idle";

export const level = table(() => ({ metadata: t("names"), data: t("all data"), pin: t("pinned copy") }));

export const role = table(() => ({ current: t("live"), previous: t("previous"), wanted: t("wanted") }));

export const step = table(() => ({
    preflight: t("check"), warm: t("load"), verify: t("verify"), stop: t("stop app"), flip: t("move link"),
    start: t("start app"), ready: t("wait until ready"), gates: t("ask gates"), watch: t("watch"), commit: t("commit"),
    "stop-new": t("undo: stop app"), "flip-back": t("undo: link back"), "start-old": t("undo: start app"), fault: t("fault"), recover: t("recovery"), restore: t("fault ends"),
    waits: t("waits for its time"),
  }));

// What a code of a reason or an event means, in a few words; the code itself where nothing better is known.
export const code = table(() => ({
    "access-denied": t("the bucket refuses access"),
    "app-backoff": t("app waits to restart"),
    "app-behind-remount": t("app restarts for a new mount"),
    "app-cannot-execute": t("app cannot be executed"),
    "app-cleaning": t("app is cleaned up"),
    "app-command-not-found": t("app's command not found"),
    "app-detached": t("app runs in the background"),
    "app-down": t("app is down"),
    "app-exited": t("app has exited"),
    "app-failed": t("app has failed"),
    "app-ignored-signal": t("app had to be killed"),
    "app-killed": t("app was killed"),
    "app-not-ready": t("app does not get ready"),
    "app-out-of-memory": t("app ran out of memory"),
    "app-running": t("app is running"),
    "app-signalled": t("signal sent to app"),
    "app-start-asked": t("start of app requested"),
    "app-starting": t("app is starting"),
    "app-stop-asked": t("stop of app requested"),
    "app-stopped": t("app is stopped"),
    "app-stopping": t("app is stopping"),
    "app-stuck": t("app cannot be stopped"),
    "app-without-mount": t("app runs without its mount"),
    "bucket-answers": t("bucket answers again"),
    "bucket-empty": t("bucket is empty"),
    "bucket-error": t("bucket answers with an error"),
    "bucket-invalid": t("what answers is not a bucket"),
    "bucket-missing": t("bucket does not exist"),
    "bucket-silent": t("bucket does not answer"),
    "bucket-slow": t("bucket is slow"),
    "bucket-unreachable": t("bucket cannot be reached"),
    bug: t("a bug in mountd"),
    "cache-broken": t("cache cannot be used"),
    "cache-bypassed": t("cache is bypassed"),
    "cache-full": t("cache disk is full"),
    "cache-not-writable": t("cache cannot be written"),
    "cache-off": t("reads go past the cache"),
    "cache-silent": t("cache disk does not answer"),
    "cache-taken": t("cache belongs to another rclone"),
    "cannot-start": t("cannot start"),
    "cannot-unmount": t("cannot unmount"),
    "clock-skew": t("the clock is wrong"),
    "conf-unwritable": t("rclone.conf cannot be written"),
    "config-broken": t("configuration file is invalid"),
    "config-incomplete": t("configuration is partly in effect"),
    "config-reloaded": t("configuration loaded"),
    "config-warning": t("configuration warning"),
    "content-changed": t("content of the live version changed"),
    "content-lost": t("content of the live version is lost"),
    "content-restored": t("content is as before"),
    "credentials-expired": t("the keys have expired"),
    "data-loaded": t("data loaded"),
    "data-loading": t("loading data"),
    "data-waits": t("loading data waits"),
    "desired-declared": t("a version is wanted"),
    "desired-invalid": t("source names no version"),
    "desired-read": t("source can be read again"),
    "desired-refused": t("source refuses access"),
    "desired-unreachable": t("source cannot be reached"),
    "directory-missing": t("directory is missing in the bucket"),
    "disk-full": t("a disk is full"),
    "drill-running": t("a drill is running"),
    "gate-unanswered": t("a gate does not answer"),
    "gpu-memory": t("not enough GPU memory"),
    "gpu-unavailable": t("GPU is not available"),
    "gpu-missing": t("no such GPU"),
    "gpu-hidden": t("app does not see the GPU"),
    "gpu-unknown": t("free GPU memory is not known"),
    "journal-gap": t("events are missing"),
    "journal-replaced": t("journal was replaced"),
    "journal-unusable": t("journal cannot be written"),
    "link-blocked": t("link cannot be placed"),
    "link-drifted": t("link was changed from outside"),
    "link-healed": t("link put right"),
    "model-linked": t("version is live"),
    "model-loading": t("model is loading"),
    "model-unavailable": t("model cannot be read"),
    "mount-backoff": t("mount waits to restart"),
    "mount-cleaning": t("mount is cleaned up"),
    "mount-dead": t("mount is dead"),
    "mount-down": t("mount is down"),
    "mount-failed": t("mount has failed"),
    "mount-hung": t("mount hangs"),
    "mount-misconfigured": t("mount is not as configured"),
    "mount-not-proven": t("reads through the mount fail"),
    "mount-not-visible": t("mount is not visible to others"),
    "mount-point": t("mount point cannot be used"),
    "mount-point-not-empty": t("mount point is not empty"),
    "mount-point-taken": t("mount point is taken"),
    "mount-refused": t("mounting is refused"),
    "mount-running": t("mount is running"),
    "mount-silent": t("mount does not answer"),
    "mount-starting": t("mount is starting"),
    "mount-stopped": t("mount is stopped"),
    "mount-stopping": t("mount is stopping"),
    "mountd-restarted-after-crash": t("the last run of mountd crashed"),
    "mountd-started": t("mountd has started"),
    "mountd-stopped": t("mountd has stopped"),
    "no-descriptors": t("no file descriptors left"),
    "no-fuse": t("FUSE is missing"),
    "no-fusermount": t("fusermount3 is missing"),
    "no-memory": t("no memory left"),
    "no-mtab": t("/etc/mtab is missing"),
    "no-nvidia-smi": t("nvidia-smi is missing"),
    "no-processes": t("no process can be started"),
    "no-room": t("not enough room on the disk"),
    "no-user": t("user does not exist"),
    "no-user-allow-other": t("user_allow_other is missing"),
    "not-ready": t("service is not ready"),
    "notifications-dropped": t("notifications were lost"),
    "notify-failing": t("notifications do not arrive"),
    "notify-working": t("notifications arrive again"),
    "object-archived": t("an object is archived"),
    "object-missing": t("an object is missing"),
    "operation-running": t("an operation is running"),
    "outbox-directory": t("outbox directory cannot be read"),
    "outbox-disk-full": t("outbox disk is almost full"),
    "outbox-disk-silent": t("outbox disk does not answer"),
    "outbox-failed": t("results cannot be uploaded"),
    "outbox-late": t("results wait for long"),
    "outbox-missing": t("outbox disk is not mounted"),
    "outbox-no-directory": t("outbox directory is missing"),
    "outbox-recovered": t("outbox is well again"),
    "outbox-too-many": t("too many new files in the outbox"),
    "outbox-unreadable": t("a result cannot be read"),
    "outbox-waiting": t("results wait for their bucket"),
    "port-taken": t("port is taken"),
    "preflight-failed": t("app's preflight failed"),
    "preflight-killed": t("preflight was killed"),
    "preflight-not-run": t("preflight could not run"),
    "profile-removed": t("access profile removed"),
    "rclone-cannot-start": t("rclone cannot start"),
    "rclone-crashed": t("rclone crashed"),
    "rclone-error": t("rclone reports an error"),
    "rclone-exited": t("rclone has exited"),
    "rclone-killed": t("rclone was killed"),
    "rclone-missing": t("rclone is missing"),
    "rclone-restarted": t("mountd restarted rclone"),
    "rclone-unusable": t("rclone cannot be used"),
    "rclone-usage": t("rclone refuses its flags"),
    "read-stuck": t("a read is stuck"),
    "reads-failing": t("reads fail"),
    ready: t("service is ready"),
    recovered: t("recovered"),
    "reload-requested": t("reload requested"),
    reopening: t("waiting files are made safe"),
    "restart-requested": t("restart requested"),
    "result-failed": t("result cannot be uploaded"),
    "result-lost": t("result removed before its upload"),
    "result-refused": t("result refused for its name"),
    "result-uploaded": t("result uploaded"),
    resumed: t("automatic changes resumed"),
    "rollback-cancelled": t("rollback cancelled"),
    "rollback-committed": t("rollback committed"),
    "rollback-failed": t("rollback failed"),
    "rollback-interrupted": t("rollback interrupted"),
    "rollback-refused": t("rollback refused"),
    "rollback-rolled-back": t("rollback undone"),
    "rolled-back": t("rolled back"),
    "schedule-begun": t("scheduled switch has begun"),
    "schedule-cancelled": t("scheduled switch cancelled"),
    "schedule-done": t("scheduled switch was not needed"),
    "schedule-failed": t("scheduled switch failed"),
    "schedule-missed": t("scheduled switch missed"),
    "secret-missing": t("a secret is missing"),
    "secret-readable": t("a secret can be read by others"),
    stopping: t("mountd is stopping"),
    suspended: t("automatic changes paused"),
    "switch-cancelled": t("switch cancelled"),
    "switch-committed": t("switch committed"),
    "switch-failed": t("switch failed"),
    "switch-given-up": t("automatic switch given up"),
    "switch-interrupted": t("switch interrupted"),
    "switch-refused": t("switch refused"),
    "switch-rolled-back": t("switch rolled back"),
    "switch-scheduled": t("switch scheduled"),
    "switch-waits": t("switch waits"),
    "sync-suspended": t("automatic sync suspended"),
    "sync-window-closed": t("sync window closed"),
    "sync-window-opened": t("sync window opened"),
    "system-error": t("the system refuses something"),
    "tls-failure": t("TLS fails"),
    "tls-unusable": t("certificate cannot be used"),
    "tokens-unusable": t("tokens cannot be used"),
    unexplained: t("not known"),
    "unsafe-path": t("path is not safe"),
    "uploads-failing": t("uploads fail"),
    "uploads-pending": t("uploads are pending"),
    "uploads-stuck": t("uploads are stuck"),
    "waiting-for-cache": t("app waits for the cache"),
    "waiting-for-content": t("version is missing or incomplete"),
    "waiting-for-model": t("app waits for its model"),
    "waiting-for-mount": t("app waits for its mount"),
  }));

// -- shapes: each health has one of its own, so that no one needs colours ------------------------------------------

const SHAPES = {
  ok: ["M12 2a10 10 0 1 1 0 20 10 10 0 0 1 0-20z", "M7.5 12.4l3 3 6-6.6"],
  busy: ["M12 2a10 10 0 1 1 0 20 10 10 0 0 1 0-20z", "M12 7v5.2l3.4 2"],
  idle: ["M4 3h16a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1z", "M9.5 8v8M14.5 8v8"],
  warn: ["M12 1.5 22.5 12 12 22.5 1.5 12z", "M12 7v6M12 16.4v.2"],
  bad: ["M12 2 23 21.5H1z", "M12 9v6M12 18v.2"],
};

export const shape = (name) => SHAPES[name] ?? SHAPES.warn;
