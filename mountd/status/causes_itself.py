"""The reasons of mountd itself and of its machine, and why it does not run: what each says to people."""

from __future__ import annotations

from mountd.i18n import N_
from mountd.status.cause import FAULTS, NOTIFICATIONS, SECURITY, SWITCHING, Cause

_CREDENTIALS = FAULTS + "credentials-expire-or-are-refused"
_USED_UP = FAULTS + "descriptors-processes-memory-or-a-disk-are-used-up"
_CONFIG = FAULTS + "the-configuration-cannot-be-read"
_KILLED = FAULTS + "mountd-is-killed"
_GATES = SWITCHING + "gates-and-watch"
_DOCTOR = "mountd doctor"
_CHECK = "mountd config check"

ITSELF: dict[str, Cause] = {
    "config-broken": Cause(
        "config",
        N_("The configuration file cannot be used; mountd keeps the previous configuration."),
        N_("Correct the problems named below; mountd reads the file again by itself."),
        _CHECK,
        _CONFIG,
    ),
    "config-incomplete": Cause(
        "config",
        N_("Only a part of the last configuration change is in effect."),
        N_("Restart mountd: systemctl restart mountd."),
        _CHECK,
        _CONFIG,
    ),
    "config-warning": Cause("config", N_("The configuration file has a warning."), "", _CHECK, _CONFIG),
    "notify-failing": Cause(
        "config",
        N_("Notifications do not reach the target {object}."),
        N_("See what the receiver answers, and the target's address and secret."),
        "mountd notify {object}",
        NOTIFICATIONS + "webhooks",
    ),
    "secret-missing": Cause(
        "config",
        N_("A secret that {object} needs cannot be read."),
        N_("Put the secret where the configuration refers to, readable by mountd's user only."),
        _DOCTOR,
        _CREDENTIALS,
    ),
    "secret-readable": Cause(
        "config",
        N_("A file with a secret can be read by other users, and is not used."),
        N_("Make it readable by mountd's user only: chmod 600."),
        _DOCTOR,
        SECURITY + "what-lies-where",
    ),
    "tokens-unusable": Cause(
        "config",
        N_("The file of the API's tokens cannot be used."),
        N_("Correct it: one name and token a line."),
        _CHECK,
        SECURITY + "tokens",
    ),
    "tls-unusable": Cause(
        "config",
        N_("The certificate of the API's TCP port cannot be used."),
        N_("Check that certificate and key belong together and are not expired."),
        _CHECK,
        SECURITY + "tls",
    ),
    "journal-unusable": Cause(
        "journal",
        N_("mountd cannot write its journal; everything else works."),
        N_("Look at the disk of the state directory, and at what else holds the journal."),
        _DOCTOR,
        _KILLED,
    ),
    "journal-replaced": Cause(
        "journal",
        N_("The journal was lost, and mountd began a new one."),
        N_("Check that the right versions are live and that the disk is healthy; then delete the file set aside."),
        "mountd status",
        _KILLED,
    ),
    "no-descriptors": Cause(
        "machine",
        N_("File descriptors are used up."),
        N_("Raise LimitNOFILE= of the unit, or see who holds them."),
        _DOCTOR,
        _USED_UP,
    ),
    "no-processes": Cause(
        "machine",
        N_("No process or thread can be started: a limit is reached."),
        N_("See TasksMax= of the unit, pids.max of the container, ulimit -u of the user."),
        _DOCTOR,
        _USED_UP,
    ),
    "no-memory": Cause(
        "machine",
        N_("Memory is used up."),
        N_("See MemoryMax= of the unit and the limits of the container, and what uses the memory."),
        _DOCTOR,
        _USED_UP,
    ),
    "disk-full": Cause(
        "machine",
        N_("A disk that mountd needs is full."),
        N_("Free some room there, or raise the quota."),
        _DOCTOR,
        _USED_UP,
    ),
    "system-error": Cause(
        "machine", N_("The system refuses something to mountd."), N_("See mountd's own log."), "mountd debug", _USED_UP
    ),
    "bug": Cause(
        "mountd",
        N_("mountd itself has a bug, and stops in order."),
        N_("Please report it with the archive of mountd debug; systemd starts mountd again."),
        "mountd debug",
        FAULTS + "a-bug-in-mountd",
    ),
    # What is no reason of the status:
    "drill-running": Cause(
        "mountd",
        N_("A drill is running on mount {object}: the fault is rehearsed."),
        N_("Wait until it has finished: it undoes by itself what it did."),
        "mountd status",
    ),
    "operation-running": Cause(
        "mountd",
        N_("An operation on model {object} is running."),
        N_("Wait until it has finished."),
        "mountd status",
        SWITCHING + "the-steps",
    ),
    "rolled-back": Cause(
        "link",
        N_("The last change of model {object} failed and was rolled back."),
        N_("What was live before is live again. Fix the cause below, then try again."),
        "mountd history --model {object}",
        _GATES,
    ),
    "mountd-restarted-after-crash": Cause(
        "mountd",
        N_("mountd was killed or crashed, and everything starts again."),
        N_("See dmesg and mountd's own log from before the restart."),
        "mountd events",
        _KILLED,
    ),
    "stopping": Cause(
        "mountd",
        N_("mountd is stopping."),
        N_("Uploads are finished first."),
        "mountd status",
        FAULTS + "an-end-is-asked-for-in-the-middle-of-a-start",
    ),
    "unexplained": Cause("mountd", N_("{object} is not well, and mountd does not know why."), "", "mountd debug"),
}

OUTSIDE: dict[str, Cause] = {
    "not-running": Cause(
        "mountd",
        N_("mountd is not running."),
        N_("Start it: systemctl start mountd, or mountd run."),
        _DOCTOR,
        "docs/install.md#start",
    ),
    "unit-failed": Cause(
        "mountd",
        N_("mountd does not run: its unit has failed."),
        N_("See systemctl status mountd."),
        _DOCTOR,
        "docs/install.md#start",
    ),
    "unit-starting": Cause(
        "mountd",
        N_("mountd is being started or stopped by systemd."),
        N_("Wait, and ask again."),
        "mountd status",
        "docs/install.md#start",
    ),
    "daemon-silent": Cause(
        "mountd",
        N_("mountd runs and does not answer."),
        N_("It may be stopped or overloaded; systemd's watchdog restarts it."),
        "mountd debug",
        _KILLED,
    ),
    "daemon-not-permitted": Cause(
        "mountd",
        N_("This user may not ask mountd."),
        N_("Use sudo, or join the group that control.group names."),
        "mountd status",
        SECURITY + "who-may-ask-mountd-and-for-what",
    ),
    "config-invalid": Cause(
        "config",
        N_("mountd cannot start: its configuration file is not valid."),
        N_("Correct the problems named below."),
        _CHECK,
        _CONFIG,
    ),
    "stale-mount": Cause(
        "mount",
        N_("A mount of mountd is still there although mountd does not run: what reads there hangs or fails."),
        N_("The next start of mountd clears it; or now: umount --lazy {object}."),
        _DOCTOR,
        _KILLED,
    ),
}
