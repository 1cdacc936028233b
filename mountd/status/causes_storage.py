"""The reasons of bucket, rclone, cache and mount: what each says to people."""

from __future__ import annotations

from mountd.i18n import N_
from mountd.status.cause import FAULTS, SECURITY, WAITS, Cause

_AWAY = FAULTS + "the-bucket-is-away"
_CREDENTIALS = FAULTS + "credentials-expire-or-are-refused"
_SOMETHING_ELSE = FAULTS + "something-else-answers-in-the-stores-place"
_ODD = FAULTS + "objects-that-cannot-be-paths-or-cannot-be-read"
_NOT_THERE = FAULTS + "bucket-content-or-version-is-not-there"
_CACHE = FAULTS + "the-caches-disk-is-full-read-only-or-gone"
_MAY_NOT = FAULTS + "the-machine-may-not-mount"
_NO_START = FAULTS + "rclone-cannot-start"
_HANGS = FAULTS + "rclone-hangs"
_USED_UP = FAULTS + "descriptors-processes-memory-or-a-disk-are-used-up"
_KILLED = FAULTS + "mountd-is-killed"
_LOGS = "mountd logs {object}"
_DOCTOR = "mountd doctor"
_SHOW = "mountd config show"
_CHECK = "mountd config check"

BUCKET: dict[str, Cause] = {
    "bucket-unreachable": Cause(
        "bucket",
        N_("The store behind {object} cannot be reached."),
        N_("Check the network, DNS, and address and port of the endpoint; mountd continues by itself when it answers."),
        _DOCTOR,
        _AWAY,
    ),
    "bucket-silent": Cause(
        "bucket",
        N_("The store behind {object} accepts connections and does not answer."),
        N_("Look at the store, and at proxies and firewalls on the way to it."),
        _DOCTOR,
        FAULTS + "the-bucket-is-a-black-hole",
    ),
    "bucket-slow": Cause(
        "bucket",
        N_("The store behind {object} answers too slowly."),
        N_("Cached files are served at full speed; look at the load of the store and at the network to it."),
        _DOCTOR,
        FAULTS + "the-bucket-is-slow",
    ),
    "bucket-error": Cause(
        "bucket",
        N_("The store behind {object} answers with an error."),
        N_("Look at the error below, at the store's own status page, and at region and endpoint of the remote."),
        _DOCTOR,
        FAULTS + "only-some-requests-fail",
    ),
    "bucket-invalid": Cause(
        "bucket",
        N_("Something that is no object store answers in place of the store behind {object}."),
        N_("A login page or a proxy answers there: open the endpoint with curl, and correct the way to it."),
        _DOCTOR,
        _SOMETHING_ELSE,
    ),
    "bucket-empty": Cause(
        "bucket",
        N_("The bucket of {object} says that it is empty, but it held files before."),
        N_("Look at the bucket itself: either something else answers in its place, or everything was deleted."),
        _DOCTOR,
        _SOMETHING_ELSE,
    ),
    "bucket-missing": Cause(
        "bucket",
        N_("The bucket or directory of {object} does not exist."),
        N_("Correct the name behind the colon in the mount's remote, or the endpoint; or create the bucket."),
        _DOCTOR,
        _NOT_THERE,
    ),
    "access-denied": Cause(
        "bucket",
        N_("The store refuses the credentials of {object}."),
        N_("Check the keys of the remote, and that they may list and read the bucket; new ones need no restart."),
        _DOCTOR,
        _CREDENTIALS,
    ),
    "credentials-expired": Cause(
        "bucket",
        N_("The credentials of {object} have expired."),
        N_("Renew the keys that the remote refers to; mountd uses new ones within seconds, without a restart."),
        _DOCTOR,
        _CREDENTIALS,
    ),
    "clock-skew": Cause(
        "bucket",
        N_("The clock of this machine and that of the store behind {object} differ too much."),
        N_("Set the clock: timedatectl set-ntp true."),
        _DOCTOR,
        FAULTS + "the-wall-clock-jumps",
    ),
    "tls-failure": Cause(
        "bucket",
        N_("No TLS connection to the store behind {object} can be made."),
        N_("Check http:// or https:// in the endpoint, the store's certificate, and who signed it."),
        _DOCTOR,
        _AWAY,
    ),
    "object-archived": Cause(
        "bucket",
        N_("An object that {object} needs is archived, and cannot be read at once."),
        N_("Restore it first, or copy it to a storage class that can be read at once."),
        "mountd versions",
        _ODD,
    ),
    "object-missing": Cause(
        "bucket", N_("An object that {object} needs is not there."), N_("Upload it again."), "mountd versions", _ODD
    ),
    "directory-missing": Cause(
        "bucket",
        N_("A directory that {object} needs is not in the bucket."),
        N_("Compare models.*.directory with what the bucket holds."),
        "mountd versions",
        _NOT_THERE,
    ),
}

RCLONE: dict[str, Cause] = {
    "rclone-killed": Cause(
        "rclone",
        N_("The rclone of mount {object} was killed; mountd replaces it."),
        N_("Another process killed it, or the kernel when memory ran out: see dmesg."),
        _LOGS,
        FAULTS + "rclone-is-killed",
    ),
    "rclone-crashed": Cause(
        "rclone",
        N_("The rclone of mount {object} crashed; mountd replaces it."),
        N_("See its last lines; a newer rclone may not have this bug."),
        _LOGS,
        FAULTS + "rclone-is-killed",
    ),
    "rclone-exited": Cause(
        "rclone",
        N_("The rclone of mount {object} exited; mountd starts it again."),
        N_("It exits without an error when another program unmounts it: find that program. Else see its last lines."),
        _LOGS,
        _NO_START,
    ),
    "rclone-restarted": Cause(
        "rclone",
        N_("mountd itself restarted the rclone of mount {object}."),
        N_("Nothing has to be done: the reason is named below."),
        _LOGS,
        FAULTS + "the-rule",
    ),
    "rclone-cannot-start": Cause(
        "rclone",
        N_("rclone cannot be started for mount {object}."),
        N_("The program or a library that it needs is missing, or it may not be executed: install it again."),
        _DOCTOR,
        _NO_START,
    ),
    "rclone-usage": Cause(
        "rclone",
        N_("rclone refuses the command line of mount {object}: an option is wrong."),
        N_("Correct the options of the mount, then run mountd reload."),
        "mountd config render",
        _NO_START,
    ),
    "rclone-missing": Cause(
        "rclone", N_("rclone is not installed, or not on PATH."), N_("Install it."), _DOCTOR, _NO_START
    ),
    "rclone-unusable": Cause(
        "rclone",
        N_("The installed rclone cannot be used."),
        N_("Install rclone 1.68 or newer, or correct rclone.binary."),
        _DOCTOR,
        _NO_START,
    ),
    "rclone-error": Cause(
        "rclone",
        N_("rclone refused a request of mountd for {object}."),
        N_("This is a mistake of mountd or of a very new rclone: please report it with the archive of mountd debug."),
        "mountd debug",
        _NO_START,
    ),
    "conf-unwritable": Cause(
        "rclone",
        N_("mountd cannot write the configuration of rclone."),
        N_("Look at the runtime directory: its disk, and whether mountd's user may write there."),
        _DOCTOR,
        _USED_UP,
    ),
    "cache-full": Cause(
        "rclone",
        N_("The disk of the cache of mount {object} is full."),
        N_("Free some room there, or set cache.max_size to less, or cache.dir to a larger disk."),
        _DOCTOR,
        _CACHE,
    ),
    "cache-not-writable": Cause(
        "rclone",
        N_("The cache directory of mount {object} cannot be written."),
        N_("Look at its disk (dmesg) and its rights; mountd returns to the cache by itself."),
        _DOCTOR,
        _CACHE,
    ),
    "cache-taken": Cause(
        "rclone",
        N_("Another mountd uses the cache directory of mount {object}."),
        N_("Stop that one, or give each its own cache.dir."),
        _SHOW,
        _CACHE,
    ),
    "cache-silent": Cause(
        "rclone",
        N_("The disk of the cache of mount {object} does not answer."),
        N_("Look at that disk: dmesg, and the network where it is a network volume."),
        _DOCTOR,
        _CACHE,
    ),
    "cache-broken": Cause(
        "rclone", N_("The cache of mount {object} cannot be read."), N_("Look at its disk: dmesg."), _DOCTOR, _CACHE
    ),
    "cache-off": Cause(
        "rclone",
        N_("The rclone of mount {object} works without its cache, although one is configured."),
        N_("See what rclone says of its cache directory."),
        _LOGS,
        _CACHE,
    ),
    "cache-bypassed": Cause(
        "rclone",
        N_("Mount {object} reads everything from the bucket until its cache has been well for ten minutes."),
        N_("The cache can be used again: mountd restart {object} does it now, and restarts the app."),
        "mountd restart {object}",
        _CACHE,
    ),
}

MOUNT: dict[str, Cause] = {
    "mount-starting": Cause(
        "mount",
        N_("Mount {object} is starting."),
        N_("It takes some seconds; longer means that something is in its way."),
        _LOGS,
    ),
    "mount-down": Cause("mount", N_("Mount {object} is down."), WAITS, _LOGS, _NO_START),
    "cannot-start": Cause("mount", N_("{object} cannot be started."), WAITS, _LOGS, _NO_START),
    "mount-silent": Cause(
        "mount",
        N_("Mount {object} does not answer its liveness probe."),
        N_("When it stays so mountd replaces the mount by itself, within seconds."),
        _LOGS,
        _HANGS,
    ),
    "mount-hung": Cause(
        "mount",
        N_("The rclone of mount {object} hangs; mountd replaces it."),
        N_("What it did is kept as evidence in the state directory, incidents/: mountd debug collects it."),
        "mountd debug",
        _HANGS,
    ),
    "mount-dead": Cause(
        "mount",
        N_("Mount {object} was unmounted by another program; mountd mounts it again."),
        N_("Find what unmounts it: a script with umount or fusermount3 -u, or a tool that cleans up."),
        "mountd events",
        FAULTS + "somebody-else-unmounts",
    ),
    "mount-misconfigured": Cause(
        "mount",
        N_("Mount {object} shows something else than was asked for; mountd replaces it."),
        N_("See what rclone says."),
        _LOGS,
        _CACHE,
    ),
    "mount-not-proven": Cause(
        "mount",
        N_("No file of mount {object} can be read, although the bucket can be listed."),
        N_("Check that the keys may read objects, and that these are not archived."),
        _DOCTOR,
        _ODD,
    ),
    "mount-not-visible": Cause(
        "mount",
        N_("Only mountd and its apps see mount {object}: mountd runs in a mount namespace of its own."),
        N_("Take ProtectSystem, ProtectHome, PrivateTmp and the like out of the unit; see systemctl cat mountd."),
        _DOCTOR,
        "docs/install.md#hardening",
    ),
    "mount-refused": Cause(
        "mount",
        N_("This machine does not let mountd mount {object}."),
        N_("See what the hint names: rights of the container, of the user, or of the unit."),
        _DOCTOR,
        _MAY_NOT,
    ),
    "no-fuse": Cause("mount", N_("FUSE cannot be used on this machine."), "", _DOCTOR, _MAY_NOT),
    "no-fusermount": Cause("mount", N_("fusermount3 is not installed."), N_("Install fuse3."), _DOCTOR, _MAY_NOT),
    "no-mtab": Cause(
        "mount", N_("/etc/mtab is missing, so that fusermount3 could not unmount again."), "", _DOCTOR, _MAY_NOT
    ),
    "no-user-allow-other": Cause(
        "mount",
        N_("The system does not permit mounts that other users may enter."),
        N_("Add the line user_allow_other to /etc/fuse.conf, or set allow_other: false."),
        _DOCTOR,
        _MAY_NOT,
    ),
    "mount-point": Cause(
        "mount", N_("The mount point of {object} cannot be used."), N_("See what stands there."), _DOCTOR, _MAY_NOT
    ),
    "mount-point-taken": Cause(
        "mount",
        N_("Something else is mounted at the mount point of {object}."),
        N_("Unmount it, or give the mount another path."),
        _DOCTOR,
        _MAY_NOT,
    ),
    "mount-point-not-empty": Cause(
        "mount",
        N_("The mount point of {object} is not empty, and a mount would hide what is there."),
        N_("Move the files away, or choose another path."),
        _DOCTOR,
        _MAY_NOT,
    ),
    "unsafe-path": Cause(
        "mount",
        N_("Another user could move the mount point of {object} elsewhere."),
        N_("Use a directory of root, or set allow_unsafe_paths: true where no other user can be."),
        _CHECK,
        SECURITY + "a-local-user",
    ),
    "cannot-unmount": Cause(
        "mount",
        N_("The old mount of {object} cannot be unmounted."),
        N_("See which programs use it: fuser -vm PATH; mountd tries again by itself."),
        _LOGS,
        _HANGS,
    ),
    "read-stuck": Cause(
        "mount",
        N_("A program waits for a read through mount {object}, although the bucket answers."),
        N_("When it lasts mountd replaces the mount by itself."),
        _LOGS,
        _HANGS,
    ),
    "reads-failing": Cause(
        "mount",
        N_("Reads through mount {object} fail, although the bucket can be listed."),
        N_("Check that the keys may read objects; see the error below."),
        _DOCTOR,
        FAULTS + "only-some-requests-fail",
    ),
    "reopening": Cause(
        "mount",
        N_("Mount {object} makes files safe that still wait for their upload, before it becomes ready."),
        N_("Wait: it takes as long as the files are large."),
        _LOGS,
        _KILLED,
    ),
    "uploads-failing": Cause(
        "mount",
        N_("Files that were written to mount {object} cannot be uploaded."),
        N_("They stay in the cache and nothing is lost; see the error below."),
        _LOGS,
        _AWAY,
    ),
    "uploads-pending": Cause(
        "mount",
        N_("Files that were written to mount {object} are not uploaded yet."),
        N_("They stay in the cache, and the next start uploads them: keep the cache directory."),
        "mountd status",
        _KILLED,
    ),
    "uploads-stuck": Cause(
        "mount", N_("Uploads of mount {object} do not finish, so that it cannot become ready."), WAITS, _LOGS, _KILLED
    ),
    "content-lost": Cause(
        "mount", N_("rclone shows a file of mount {object} without its content."), WAITS, _LOGS, _KILLED
    ),
}
