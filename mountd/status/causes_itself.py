"""The reasons of mountd itself and of its machine, and why it does not run: what each says to people."""

from __future__ import annotations

from mountd.status.cause import FAULTS, SECURITY, SWITCHING, Cause, _

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
        _("The configuration file cannot be used; mountd keeps the previous configuration."),
        _("Correct the problems named below; mountd reads the file again by itself."),
        _CHECK,
        _CONFIG,
    ),
    "config-incomplete": Cause(
        "config",
        _("Only a part of the last configuration change is in effect."),
        _("Restart mountd: systemctl restart mountd."),
        _CHECK,
        _CONFIG,
    ),
    "config-warning": Cause("config", _("The configuration file has a warning."), "", _CHECK, _CONFIG),
    "secret-missing": Cause(
        "config",
        _("A secret that {object} needs cannot be read."),
        _("Put the secret where the configuration refers to, readable by mountd's user only."),
        _DOCTOR,
        _CREDENTIALS,
    ),
    "secret-readable": Cause(
        "config",
        _("A file with a secret can be read by other users, and is not used."),
        _("Make it readable by mountd's user only: chmod 600."),
        _DOCTOR,
        SECURITY + "what-lies-where",
    ),
    "tokens-unusable": Cause(
        "config",
        _("The file of the API's tokens cannot be used."),
        _("Correct it: one name and token a line."),
        _CHECK,
        SECURITY + "tokens",
    ),
    "tls-unusable": Cause(
        "config",
        _("The certificate of the API's TCP port cannot be used."),
        _("Check that certificate and key belong together and are not expired."),
        _CHECK,
        SECURITY + "tls",
    ),
    "journal-unusable": Cause(
        "journal",
        _("mountd cannot write its journal; everything else works."),
        _("Look at the disk of the state directory, and at what else holds the journal."),
        _DOCTOR,
        _KILLED,
    ),
    "journal-replaced": Cause(
        "journal",
        _("The journal was lost, and mountd began a new one."),
        _("Check that the right versions are live and that the disk is healthy; then delete the file set aside."),
        "mountd status",
        _KILLED,
    ),
    "no-descriptors": Cause(
        "machine",
        _("File descriptors are used up."),
        _("Raise LimitNOFILE= of the unit, or see who holds them."),
        _DOCTOR,
        _USED_UP,
    ),
    "no-processes": Cause(
        "machine",
        _("No process or thread can be started: a limit is reached."),
        _("See TasksMax= of the unit, pids.max of the container, ulimit -u of the user."),
        _DOCTOR,
        _USED_UP,
    ),
    "no-memory": Cause(
        "machine",
        _("Memory is used up."),
        _("See MemoryMax= of the unit and the limits of the container, and what uses the memory."),
        _DOCTOR,
        _USED_UP,
    ),
    "disk-full": Cause(
        "machine",
        _("A disk that mountd needs is full."),
        _("Free some room there, or raise the quota."),
        _DOCTOR,
        _USED_UP,
    ),
    "system-error": Cause(
        "machine", _("The system refuses something to mountd."), _("See mountd's own log."), "mountd events", _USED_UP
    ),
    "bug": Cause(
        "mountd",
        _("mountd itself has a bug, and stops in order."),
        _("Please report it with the archive of mountd debug; systemd starts mountd again."),
        "mountd events",
        FAULTS + "a-bug-in-mountd",
    ),
    # What is no reason of the status:
    "drill-running": Cause(
        "mountd",
        _("A drill is running on mount {object}: the fault is rehearsed."),
        _("Wait until it has finished, or cancel it."),
        "mountd cancel --model {object}",
    ),
    "operation-running": Cause(
        "mountd",
        _("An operation on model {object} is running."),
        _("Wait until it has finished."),
        "mountd status",
        SWITCHING + "the-steps",
    ),
    "rolled-back": Cause(
        "link",
        _("The last change of model {object} failed and was rolled back."),
        _("What was live before is live again. Fix the cause below, then try again."),
        "mountd history --model {object}",
        _GATES,
    ),
    "mountd-restarted-after-crash": Cause(
        "mountd",
        _("mountd was killed or crashed, and everything starts again."),
        _("See dmesg and mountd's own log from before the restart."),
        "mountd events",
        _KILLED,
    ),
    "stopping": Cause(
        "mountd",
        _("mountd is stopping."),
        _("Uploads are finished first."),
        "mountd status",
        FAULTS + "an-end-is-asked-for-in-the-middle-of-a-start",
    ),
    "unexplained": Cause("mountd", _("{object} is not well, and mountd does not know why."), "", "mountd events"),
}

OUTSIDE: dict[str, Cause] = {
    "not-running": Cause(
        "mountd",
        _("mountd is not running."),
        _("Start it: systemctl start mountd, or mountd run."),
        _DOCTOR,
        "docs/install.md#start",
    ),
    "unit-failed": Cause(
        "mountd",
        _("mountd does not run: its unit has failed."),
        _("See systemctl status mountd."),
        _DOCTOR,
        "docs/install.md#start",
    ),
    "unit-starting": Cause(
        "mountd",
        _("mountd is being started or stopped by systemd."),
        _("Wait, and ask again."),
        "mountd status",
        "docs/install.md#start",
    ),
    "daemon-silent": Cause(
        "mountd",
        _("mountd runs and does not answer."),
        _("It may be stopped or overloaded; systemd's watchdog restarts it."),
        "mountd events",
        _KILLED,
    ),
    "daemon-not-permitted": Cause(
        "mountd",
        _("This user may not ask mountd."),
        _("Use sudo, or join the group that control.group names."),
        "mountd status",
        SECURITY + "who-may-ask-mountd-and-for-what",
    ),
    "config-invalid": Cause(
        "config",
        _("mountd cannot start: its configuration file is not valid."),
        _("Correct the problems named below."),
        _CHECK,
        _CONFIG,
    ),
    "stale-mount": Cause(
        "mount",
        _("A mount of mountd is still there although mountd does not run: what reads there hangs or fails."),
        _("The next start of mountd clears it; or now: umount --lazy {object}."),
        _DOCTOR,
        _KILLED,
    ),
}
