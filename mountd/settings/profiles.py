"""Profiles: named sets of flags of `rclone mount`, and why each flag.

What hangs on the mount at hand (cache directory and sizes, owner, other users, name, log, remote control) is added in
`rclone/command.py`; a mount's `options` replace what stands here. Numbers were measured with real FUSE.
"""

from __future__ import annotations

from mountd.settings.schema import Flag, MountSettings
from mountd.settings.units import Size, parse_duration

BUFFERED_BYTES = 1024 * 1024
"""rclone's buffers are that large, or there are none [source of 1.75.2]."""
MAY_LACK = frozenset({"vfs-handle-caching"})
"""An rclone that does not know one of these does by itself what it asks for."""
_OFF = ("false", "f", "0")

_CACHE: dict[str, Flag] = {
    # What was read is noted when the file is closed; with the default 5s a stop forgets the model that was just open.
    "vfs-handle-caching": "0",
}
_NETWORK: dict[str, Flag] = {
    "contimeout": "10s",  # a store that does not answer is noticed in seconds, not in rclone's default minute
    # A stalled transfer is retried after a minute; the often-copied 1h finds stalls an hour late.
    "timeout": "60s",
    "low-level-retries": "3",  # retries multiply (pacer 2, downloader 10): more only hides an outage
}
_S3: dict[str, Flag] = {
    "poll-interval": "0",  # S3 has no change notification to poll
    "s3-no-check-bucket": True,  # keys without the right to create buckets are enough
}

# Written once, read often, several gigabytes a file; versions never change under their name.
_HUB: dict[str, Flag] = {
    "read-only": True,  # a web UI that misses files would otherwise download them into the team's bucket
    "vfs-cache-mode": "full",  # only full keeps what was read: the second load took 0.67 s, with writes 15.3 s
    "vfs-cache-max-age": "8760h",  # the default hour evicts a model that idles; 0 evicts whatever is not open
    "use-server-modtime": True,  # else each stat asks the store: a walk of 20,000 files 12.1 s, so 0.77 s
    "dir-cache-time": "1000h",  # mountd refreshes listings, before a version is used and never in an outage
    "attr-timeout": "1s",  # the kernel asks rclone for attributes once a second at most
    **_CACHE,
    "vfs-read-ahead": "256M",  # a loader reads forward: the next part is on disk before it asks
    # Memory for each stream from the bucket; the read-ahead above lies on disk and costs none. rclone gives a reader
    # that begins less than that ahead of a download none of its own, and where downloads meet, what is in it comes
    # twice: all data of a version took 6.9 s, 5 % of them twice; with 16M 7.5 s and 7 %. Not less than 1M: parts of
    # blocks would be written, see `writes_whole_blocks`.
    "buffer-size": "1M",
    **_NETWORK,
}

PROFILES: dict[str, dict[str, Flag]] = {
    "model-hub": _HUB,
    # The same where memory is small, and the disk slow. Peak of rclone and mountd together (PSS, 1.75.2) while a hub of
    # 0.9 GB is read file by file, by 8 and by 64 readers at once: 159, 180 and 215 MB. No max-buffer-memory: it took
    # nothing off the peak, and made 64 readers wait for each other (9.4 s in place of 6.5 s).
    "small": _HUB
    | {
        # A loader reads forward, but a slow disk should not be busy with what nobody may ever ask for.
        "vfs-read-ahead": "16M",
    },
    # What an app makes, some megabytes a file: it must be able to read back at once what it wrote.
    "outputs": {
        # Programs seek in what they write and in what they play back; with full both happen on local disk.
        "vfs-cache-mode": "full",
        # Uploaded soon, yet a file that is closed and opened again at once (a tag, a new name) goes up only once.
        "vfs-write-back": "2s",
        "vfs-cache-max-age": "24h",  # what was made today is read from local disk; what waits for its upload stays
        # Beyond it the oldest uploaded files go; what is not uploaded never does: 8 MB waited in a cache of 1M.
        "vfs-cache-max-size": "10G",
        **_CACHE,
        "dir-cache-time": "1m",  # what others upload is seen within a minute
        "attr-timeout": "1s",  # the kernel asks rclone for attributes once a second at most
        "buffer-size": "16M",  # memory for each open file
        # No use-server-modtime: a program would see the time of the upload in place of that of its write.
        **_NETWORK,
    },
    # Anything else: writable, others may write to the bucket at the same time.
    "plain": {
        "vfs-cache-mode": "writes",  # programs that seek while they write (WAV headers) fail without
        "vfs-write-back": "1s",  # a closed file is uploaded at once: stopping rclone does not upload what waits
        **_CACHE,
        "dir-cache-time": "1m",  # what others upload is seen within a minute
        **_NETWORK,
    },
}


ENVIRONMENT: dict[str, dict[str, str]] = {
    # rclone makes 128 KiB of garbage for each request of the kernel, and collects it each time its memory has doubled,
    # which is little. A hub of 0.9 GB, all cached, was loaded in 3.0 s with the default 100, 2.5 s with 200 and 2.2 s
    # with 400 (8 loads in turns, from the local disk 1.0 s), for 2.9, 2.3 and 1.9 s of CPU. Not more than 200: with a
    # million objects, of which rclone knows 1 GiB, it would hold 5 GiB in place of 3.
    "model-hub": {"GOGC": "200"},
    # rclone collects its garbage more often once it holds more than that, and only then: with 8 readers it holds 60 MB
    # anyway, with 64 the peak of all was 215 MB in place of 234. GOGC=50 saved 15 MB, always for a fifth more CPU.
    "small": {"GOMEMLIMIT": "96MiB"},
}
"""Variables of rclone by profile; mountd's own of the same name replace them."""


def flags(profile: str, backend: str) -> dict[str, Flag]:
    """The flags of a profile for a remote of type `backend`, in order. KeyError for an unknown profile."""
    return PROFILES[profile] | (_S3 if backend == "s3" else {})


def _value(mount: MountSettings, flag: str, otherwise: Flag) -> str:
    """Of a flag of this mount: as its options say, else its profile, else `otherwise`."""
    given = mount.options.get(flag)
    if given is None:
        given = PROFILES[mount.profile].get(flag, otherwise)
    return str(given)


def is_read_only(mount: MountSettings) -> bool:
    return _value(mount, "read-only", False).lower() not in _OFF


def writes_back(mount: MountSettings) -> bool:
    """Whether files wait in this mount's cache for their upload: anything that can be written, with a cache."""
    return not is_read_only(mount) and cache_mode(mount).lower() != "off"


def writes_whole_blocks(mount: MountSettings) -> bool:
    """Whether rclone fills each block of a large cached file as a whole: no program asks it for a part of one, and a
    buffer in memory, of 1 MiB at least, collects what comes in pieces from the network."""
    try:
        size = Size.parse(_value(mount, "buffer-size", "16M"))
    except ValueError:
        return False
    return _value(mount, "direct-io", False).lower() in _OFF and size.of(0) >= BUFFERED_BYTES


def cache_mode(mount: MountSettings) -> str:
    """What `--vfs-cache-mode` of this mount is, rclone's default included."""
    return _value(mount, "vfs-cache-mode", "off")


def write_back_s(mount: MountSettings) -> float:
    """Seconds after the last writer until rclone uploads a file; 0 where mountd cannot read the option."""
    try:
        return parse_duration(_value(mount, "vfs-write-back", "5s"))
    except ValueError:
        return 0.0
