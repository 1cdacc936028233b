"""mountinfo's text as entries: forms of lines, escapes, which of several mounts is seen, whose it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import Bug
from mountd.fuse.table import Entry, at, devname, is_seen_from, made_by, of_instance, of_source, parse, unescape


def line(
    mount_id: int, parent_id: int, mount_point: str, source: str = "mountd:abc:x", fs_type: str = "fuse.rclone"
) -> str:
    return f"{mount_id} {parent_id} 0:{mount_id} / {mount_point} rw,nosuid - {fs_type} {source} rw,user_id=0\n"


def test_a_line_of_rclone() -> None:
    text = "42 27 0:39 / /mnt/x rw,nosuid,nodev,relatime - fuse.rclone mountd:abc:x rw,user_id=0,group_id=0\n"
    (entry,) = parse(text)
    assert entry == Entry(
        mount_id=42,
        parent_id=27,
        device="0:39",
        root="/",
        mount_point="/mnt/x",
        fs_type="fuse.rclone",
        source="mountd:abc:x",
    )
    assert entry.minor == 39
    assert entry.is_fuse


@pytest.mark.parametrize(
    ("text", "mount_point", "source", "fs_type"),
    [
        ("1 1 0:2 / / rw - rootfs rootfs rw", "/", "rootfs", "rootfs"),
        ("9 1 8:1 / /a rw shared:7 master:2 propagate_from:1 - ext4 /dev/sda1 rw", "/a", "/dev/sda1", "ext4"),
        ("9 1 0:5 / /my\\040models rw - fuse a\\011b rw", "/my models", "a\tb", "fuse"),
        ("9 1 0:5 / /a\\012b\\134c rw - fuse x\\043y rw", "/a\nb\\c", "x#y", "fuse"),
        ("9 1 0:5 / /empty rw - tmpfs  rw", "/empty", "", "tmpfs"),
        ("9 1 0:5 /sub/- /- rw - fuse - rw", "/-", "-", "fuse"),
        ("9 1 0:5 / /one\x0btwo\u2028three\u00a0\r rw - fuse x rw", "/one\x0btwo\u2028three\u00a0\r", "x", "fuse"),
        ("9 1 0:5 / /caf\udce9 rw - fuse x rw", "/caf\udce9", "x", "fuse"),
    ],
)
def test_forms_of_lines(text: str, mount_point: str, source: str, fs_type: str) -> None:
    (entry,) = parse(text + "\n")
    assert (entry.mount_point, entry.source, entry.fs_type) == (mount_point, source, fs_type)


@given(st.lists(st.sampled_from(["/a", "/a b", "/a\\b", "/a\nb", "/a\tb", "/a/b", "/é", "/"]), max_size=6))
def test_what_is_read_of_one_mount_point_is_enough_for_it(points: list[str]) -> None:
    escaped = {" ": "040", "\\": "134", "\n": "012", "\t": "011"}
    shown = ["".join(f"\\{escaped[each]}" if each in escaped else each for each in point) for point in points]
    text = "".join(line(number + 2, number + 1, point) for number, point in enumerate(shown))
    for point in points:
        assert at(parse(text, point), point) == at(parse(text), point)


@pytest.mark.parametrize(
    "text", ["nonsense", "1 2 0:3 / /x rw", "x 1 0:2 / / rw - a b rw", "1 1 0:2 / / rw - a b", "9 1 0:5 / /a - a b rw"]
)
def test_an_unknown_form_is_a_bug(text: str) -> None:
    with pytest.raises(Bug):
        parse(text)


def test_nothing_mounted() -> None:
    assert parse("") == ()


def escape(raw: bytes) -> str:
    """As the kernel does it for mount points (seq_path)."""
    out = b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in raw)
    return out.decode("utf-8", "surrogateescape")


@given(st.binary(min_size=1, max_size=60).map(lambda raw: b"/" + raw.replace(b"\0", b"")))
def test_every_path_survives_escaping(raw: bytes) -> None:
    assert unescape(escape(raw)).encode("utf-8", "surrogateescape") == raw
    (entry,) = parse(line(5, 1, escape(raw)))
    assert entry.mount_point.encode("utf-8", "surrogateescape") == raw


@given(st.lists(st.binary(min_size=1, max_size=8).map(lambda raw: raw.replace(b"\0", b"0")), max_size=5))
def test_lines_stay_apart(names: list[bytes]) -> None:
    entries = parse("".join(line(10 + n, 1, "/" + escape(raw)) for n, raw in enumerate(names)))
    assert [entry.mount_point.encode("utf-8", "surrogateescape") for entry in entries] == [b"/" + raw for raw in names]


def test_at_is_the_topmost() -> None:
    entries = parse(line(1, 1, "/") + line(5, 1, "/mnt/x") + line(6, 5, "/mnt/x") + line(7, 1, "/mnt/y"))
    top = at(entries, "/mnt/x")
    assert top is not None
    assert top.mount_id == 6
    assert at(entries, "/mnt/x/") == top
    assert at(entries, "/mnt/x/inside") is None
    assert at(entries, "/mnt") is None
    root = at(entries, "/")
    assert root is not None
    assert root.mount_id == 1


def test_at_goes_by_the_parent_not_only_by_order() -> None:
    moved_on_top = parse(line(5, 9, "/mnt/x") + line(9, 1, "/mnt/x"))
    top = at(moved_on_top, "/mnt/x")
    assert top is not None
    assert top.mount_id == 5


def test_whose_mounts() -> None:
    entries = parse(
        line(1, 1, "/", "/dev/sda1", "ext4")
        + line(5, 1, "/mnt/x")
        + line(6, 5, "/mnt/x")
        + line(7, 1, "/mnt/y", "mountd:abc:y")
        + line(8, 1, "/mnt/z", "mountd:abcd:x")
        + line(9, 1, "/mnt/t", "mountd:abc:x", "tmpfs")
        + line(10, 1, "/bind")
    )
    assert [entry.mount_id for entry in of_instance(entries, "abc")] == [5, 6, 7, 10]
    assert [entry.mount_id for entry in of_instance(entries, "abcd")] == [8]
    assert of_instance(entries, "ab") == []
    assert [entry.mount_id for entry in of_source(entries, devname("abc", "x"), "/mnt/x/")] == [5, 6]


def test_what_others_have_bound_is_not_ours_to_unmount() -> None:
    part = line(6, 5, "/mnt/x").replace(" / /mnt/x ", " /v23 /mnt/x ")
    assert part != line(6, 5, "/mnt/x")
    entries = parse(line(5, 1, "/mnt/x") + part + line(7, 1, "/bind") + line(8, 1, "/mnt/old"))
    ours = made_by(entries, "abc", {"/mnt/x", "/mnt/old", "/mnt/none"})
    assert [entry.mount_id for entry in ours] == [5, 8]
    assert [entry.mount_id for entry in of_source(entries, devname("abc", "x"), "/mnt/x")] == [5]


def shared(text: str, group: int) -> str:
    return text.replace(" - ", f" shared:{group} - ", 1)


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        pytest.param(line(1, 0, "/") + line(9, 1, "/mnt"), True, id="the same namespace"),
        pytest.param(line(101, 0, "/") + line(109, 101, "/mnt"), False, id="private, or a slave of the machine's"),
        pytest.param(
            shared(line(101, 0, "/"), 1) + shared(line(109, 101, "/mnt"), 77), False, id="as systemd makes it"
        ),
        pytest.param(line(101, 0, "/") + shared(line(109, 101, "/mnt"), 2), True, id="a directory that is shared"),
        pytest.param(shared(line(101, 0, "/"), 1) + shared(line(109, 101, "/mn"), 77), True, id="the root is shared"),
    ],
)
def test_whether_the_machine_sees_a_mount(own: str, seen: bool) -> None:
    machine = parse(shared(line(1, 0, "/"), 1) + shared(line(9, 1, "/mnt"), 2))
    assert is_seen_from("/mnt/x", parse(own), machine) is seen


@pytest.mark.parametrize(("instance", "name"), [("", "x"), ("abc", ""), ("a:b", "x")])
def test_names_that_could_be_mistaken(instance: str, name: str) -> None:
    with pytest.raises(Bug):
        devname(instance, name)


def test_devname() -> None:
    assert devname("abc", "models") == "mountd:abc:models"
