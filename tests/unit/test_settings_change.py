"""Old and new settings → what restarts, what takes effect in place, what is refused: the table of the interface."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mountd.settings import change
from mountd.settings.change import Change, Effect, Names, compare, effect_of, remounting
from mountd.settings.http import HttpSettings
from mountd.settings.load import Places, parse
from mountd.settings.outbox import OutboxSettings
from mountd.settings.schema import AppSettings, CacheSettings, ModelSettings, MountSettings, Settings, keys_of
from mountd.settings.source import Place, dotted

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
FILE: dict[str, Any] = {
    "remotes": {
        "store": {
            "type": "s3",
            "endpoint": "http://x",
            "access_key_id": "AKID",
            "secret_access_key": {"file": "/secrets/key"},
        },
        "dav": {"type": "webdav", "url": "http://y", "pass": {"file": "/secrets/pass"}},
        "hidden": {"type": "crypt", "remote": "dav:deep", "password": {"file": "/secrets/password"}},
    },
    "mounts": {
        "hub": {"remote": "store:data", "path": "/mnt/hub", "allow_other": "true"},
        "out": {"remote": "hidden:", "path": "/mnt/out", "profile": "plain", "allow_other": "true"},
    },
    "models": {
        "voice": {"mount": "hub", "directory": "voice_{version}", "link": "/srv/voice", "version": "v1"},
        "other": {"mount": "hub", "directory": "other_{version}", "link": "/srv/other", "version": "v1"},
    },
    "apps": {
        "webui": {
            "command": ["run"],
            "environment": {"MODE": "a", "API_TOKEN": {"file": "/secrets/token"}},
            "needs": ["voice"],
            "ready": {"http": "http://127.0.0.1:7860/"},
        },
        "plain": {"command": ["other"], "needs": ["out"]},
        "free": {"command": ["free"]},
    },
}


def settings(*edits: tuple[str, Any], without: tuple[str, ...] = ()) -> Settings:
    """FILE with values set at `a.b.c`, and without the keys of `without`."""
    data = copy.deepcopy(FILE)
    for path, value in edits:
        *parents, last = path.split(".")
        at = data
        for key in parents:
            at = at.setdefault(key, {})
        at[last] = value
    for path in without:
        *parents, last = path.split(".")
        at = data
        for key in parents:
            at = at[key]
        del at[last]
    return parse(yaml.safe_dump(data, sort_keys=False), "x.yaml", PLACES).settings


def diff(*edits: tuple[str, Any], without: tuple[str, ...] = ()) -> Change:
    return compare(settings(), settings(*edits, without=without), {}, {}, root=True)


ROWS: list[tuple[str, Any, dict[str, Any]]] = [
    # a remote: credentials go on, everything else remounts what stands on it, also below another remote
    ("remotes.store.secret_access_key", {"file": "/secrets/other"}, {"credentials": ("hub",)}),
    ("remotes.store.access_key_id", "AKID2", {"credentials": ("hub",)}),
    ("remotes.dav.pass", {"env": "PASS"}, {"credentials": ("out",)}),
    ("remotes.store.endpoint", "http://z", {"remount": ("hub",), "follow": ("webui",)}),
    ("remotes.store.region", "there", {"remount": ("hub",), "follow": ("webui",)}),
    ("remotes.dav.url", "http://z", {"remount": ("out",), "follow": ("plain",)}),
    ("remotes.hidden.remote", "dav:deeper", {"remount": ("out",), "follow": ("plain",)}),
    # a mount
    ("mounts.hub.remote", "store:data2", {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.uid", "7", {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.umask", "027", {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.allow_other", "false", {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.options", {"vfs-read-ahead": "1M"}, {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.cache.max_size", "1G", {"remount": ("hub",), "follow": ("webui",)}),
    ("mounts.hub.cache.min_free", "1G", {"remount": ("hub",), "follow": ("webui",)}),
    (
        "mounts.hub.path",
        "/mnt/hub2",
        {"replace": ("hub",), "restart_models": ("voice", "other"), "restart": ("webui",)},
    ),
    ("mounts.hub.cache.dir", "/c", {"replace": ("hub",), "restart_models": ("voice", "other"), "restart": ("webui",)}),
    ("mounts.hub.health.interval", "3s", {}),
    ("mounts.hub.health.backend", "30s", {}),
    ("mounts.hub.drain", "5s", {}),
    # a model
    ("models.voice.version", "v2", {"switch": ("voice",)}),
    ("models.voice.required", ["a"], {}),
    ("models.voice.keep", "3", {}),
    ("models.voice.sync.automatic", "false", {}),
    ("models.voice.sync.retry.limit", "0", {}),
    ("models.voice.warm.level", "pin", {}),
    ("models.voice.warm.adopt", ["/data"], {}),
    ("models.voice.warm.limit", "20M", {}),
    ("models.voice.warm.only_opened", "true", {}),
    ("models.voice.watch.for", "5s", {}),
    ("models.voice.watch.crashes", "2", {}),
    ("models.voice.gates", [{"http": "http://x"}], {}),
    ("models.voice.link", "/srv/voice2", {"relink": ("voice",)}),
    ("models.voice.directory", "v/{version}", {"restart_models": ("voice",), "follow": ("webui",)}),
    ("models.voice.mount", "out", {"restart_models": ("voice",), "follow": ("webui",)}),
    # an app
    ("apps.webui.command", ["run", "--fast"], {"restart": ("webui",)}),
    ("apps.webui.directory", "/srv", {"restart": ("webui",)}),
    ("apps.webui.user", "tts", {"restart": ("webui",)}),
    ("apps.webui.environment.MODE", "b", {"restart": ("webui",)}),
    ("apps.webui.environment.NEW", "b", {"restart": ("webui",)}),
    ("apps.webui.environment.API_TOKEN", {"env": "T"}, {"restart": ("webui",)}),
    ("apps.webui.needs", ["voice", "other"], {"restart": ("webui",)}),
    ("apps.webui.needs", [{"model": "voice", "level": "metadata"}], {}),
    ("apps.webui.needs", [{"model": "other", "level": "metadata"}], {"restart": ("webui",)}),
    ("apps.webui.ready.timeout", "1m", {}),
    ("apps.webui.ready", None, {}),
    ("apps.webui.preflight", {"gpu_memory": "8G"}, {}),
    ("apps.webui.stop", {"grace": "1s"}, {}),
    ("apps.webui.restart", {"after": ["crash"]}, {}),
    # mountd itself
    ("log.level", "debug", {}),
    ("http.listen", "127.0.0.1:9999", {"listen": True}),
    ("http.tls", {"certificate": {"file": "/c"}, "key": {"file": "/k"}}, {"listen": True}),
    ("http.tokens", {"file": "/t"}, {"admit": True}),
    ("http.behind_proxy", "true", {"admit": True}),
    ("allow_plain_secrets", "true", {}),
]


@pytest.mark.parametrize(("path", "value", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_one_key(path: str, value: Any, expected: dict[str, Any]) -> None:
    found = diff((path, value))
    assert found
    assert all(dotted(place).startswith(path) or path.startswith(dotted(place)) for place in found.places)
    done = {name: getattr(found, name) for name in expected}
    assert done == expected
    untouched = Change(places=found.places, in_place=found.in_place, **expected)
    assert found == untouched, "something else restarts, too"
    restarting = {"remount", "replace", "restart", "restart_models"} & expected.keys()
    assert bool(found.in_place) is not bool(restarting)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("control.socket", "/run/x.sock"),
        ("control.group", "tts"),
        ("state", "/var/lib/other"),
        ("runtime", "/run/other"),
        ("rclone.binary", "/usr/bin/rclone"),
        ("log.format", "json"),
    ],
)
def test_what_only_a_restart_of_mountd_changes(path: str, value: str) -> None:
    assert path in [dotted(place) for place in diff((path, value)).refused]


def test_what_is_declared_counts_again_once_it_is_followed() -> None:
    off, on = (("models.voice.sync.automatic", word) for word in ("false", "true"))
    assert compare(settings(off), settings(on), {}, {}, root=True).switch == ("voice",)
    assert compare(settings(on), settings(off), {}, {}, root=True).switch == ()


def test_a_profile_that_writes_back_is_drained_under_the_old_rules() -> None:
    found = diff(("mounts.hub.profile", "outputs"))
    assert (found.replace, found.remount, found.restart) == (("hub",), (), ("webui",))


def test_added_and_removed() -> None:
    found = diff(
        ("mounts.more", {"remote": "store:more", "path": "/mnt/more", "allow_other": "true"}),
        ("models.extra", {"mount": "more", "directory": "{version}", "link": "/srv/extra", "version": "v1"}),
        ("apps.second", {"command": ["x"], "needs": ["extra"]}),
        without=("models.other", "apps.free"),
    )
    assert found.added == Names(("more",), ("extra",), ("second",))
    assert found.removed == Names((), ("other",), ("free",))
    assert [dotted(place) for place in found.places] == [
        "mounts.more", "models.other", "models.extra", "apps.free", "apps.second",
    ]  # fmt: skip
    assert (found.remount, found.restart, found.follow, found.refused) == ((), (), (), ())


def test_outboxes_change_in_place() -> None:
    outbox = {"directory": "/srv/outputs", "remote": "store:results"}
    old = settings(("outbox", {"one": outbox, "two": {**outbox, "directory": "/srv/x", "remote": "store:other"}}))
    new = settings(("outbox", {"one": {**outbox, "keep": "1h"}, "three": {"directory": "/srv/y", "remote": "store:y"}}))
    found = compare(old, new, {}, {}, root=True)
    assert (found.added.outbox, found.removed.outbox) == (("three",), ("two",))
    assert [dotted(place) for place in found.in_place] == ["outbox.one.keep"]
    assert (found.refused, found.remount, found.restart, found.follow) == ((), (), (), ())


def test_a_removed_remote_key_remounts() -> None:
    assert diff(("remotes.store.region", "r")).remount == ("hub",)
    assert compare(settings(("remotes.store.region", "r")), settings(), {}, {}, root=True).remount == ("hub",)


def test_another_type_of_remote_is_no_new_credential() -> None:
    old = settings(("remotes.store", {"type": "webdav", "url": "http://x", "pass": {"file": "/a"}}))
    new = settings(("remotes.store", {"type": "sftp", "host": "x", "pass": {"file": "/a"}}))
    assert compare(old, new, {}, {}, root=True).remount == ("hub",)


def test_an_app_that_wants_no_restart_does_not_follow() -> None:
    old = settings(("apps.webui.restart", {"after": ["crash"]}))
    new = settings(("apps.webui.restart", {"after": ["crash"]}), ("mounts.hub.uid", "7"))
    found = compare(old, new, {}, {}, root=True)
    assert (found.remount, found.follow) == (("hub",), ())


@pytest.mark.parametrize(("after", "follows"), [(["switch"], True), (["remount"], False), (["crash"], False)])
def test_an_app_follows_a_model_that_moves_as_it_does_a_switch(after: list[str], follows: bool) -> None:
    restart = ("apps.webui.restart", {"after": after})
    moved = settings(restart, ("models.voice.directory", "v/{version}"))
    found = compare(settings(restart), moved, {}, {}, root=True)
    assert (found.restart_models, found.follow) == (("voice",), ("webui",) if follows else ())


def test_the_first_app_of_another_user_opens_the_mounts_to_it() -> None:
    hidden = ("mounts.hub.allow_other",)
    old, new = settings(without=hidden), settings(("apps.webui.user", "tts"), without=hidden)
    assert compare(old, new, {}, {}, root=False).remount == ("hub",)
    assert compare(old, new, {}, {}, root=True).remount == ()


SECRETS: dict[Place, dict[str, Any]] = {
    ("remotes", "store", "secret_access_key"): {"credentials": ("hub",)},
    ("remotes", "dav", "pass"): {"credentials": ("out",)},
    ("remotes", "hidden", "password"): {"credentials": ("out",)},
    ("apps", "webui", "environment", "API_TOKEN"): {"restart": ("webui",)},
}


@pytest.mark.parametrize("place", SECRETS, ids=dotted)
def test_a_secret_that_has_changed_behind_the_same_reference(place: Place) -> None:
    before = dict.fromkeys(SECRETS, "before")
    found = compare(settings(), settings(), before, {**before, place: "after"}, root=True)
    in_place = () if place[0] == "apps" else (place,)
    assert found == Change(places=(place,), in_place=in_place, **SECRETS[place])


@pytest.mark.parametrize("place", [("http", "tokens"), ("http", "tls", "certificate"), ("http", "tls", "key")])
def test_new_tokens_and_certificates_move_nothing(place: Place) -> None:
    found = compare(settings(), settings(), {place: "before"}, {place: "after"}, root=True)
    assert found == Change(places=(place,), in_place=(place,), admit=True)


def test_another_certificate_is_another_file_of_the_same_port() -> None:
    one, two = ({"certificate": {"file": "/c"}, "key": {"file": f"/{name}"}} for name in "ab")
    found = compare(settings(("http.tls", one)), settings(("http.tls", two)), {}, {}, root=True)
    assert (found.places, found.admit, found.listen) == ((("http", "tls", "key"),), True, False)


def test_credentials_that_only_a_remount_brings() -> None:
    place = ("remotes", "dav", "pass")
    found = compare(settings(), settings(), {place: "a"}, {place: "b"}, root=True)
    assert remounting(found, [], settings()) == found
    assert remounting(found, ["out"], settings()) == Change(places=(place,), remount=("out",), follow=("plain",))


def test_a_remount_takes_the_new_credentials_along() -> None:
    place = ("remotes", "store", "secret_access_key")
    found = compare(settings(), settings(("mounts.hub.uid", "7")), {place: "a"}, {place: "b"}, root=True)
    assert (found.remount, found.credentials) == (("hub",), ())


@pytest.mark.parametrize(
    ("section", "table"),
    [
        (MountSettings, change._MOUNT),
        (CacheSettings, change._CACHE),
        (ModelSettings, change._MODEL),
        (AppSettings, change._APP),
        (HttpSettings, change._HTTP),
        (OutboxSettings, change._OUTBOX),
    ],
)
def test_every_key_has_its_row(section: type[BaseModel], table: dict[str, Effect]) -> None:
    """A new key of the schema has to be decided about, not guessed."""
    assert table.keys() == keys_of(section).keys()


def test_every_section_has_its_row() -> None:
    assert {*change._TOP, *change._SECTIONS, "remotes", "http"} == Settings.model_fields.keys()


def are_apart(edits: list[tuple[str, Any]]) -> bool:
    """Whether no key is taken away or replaced that another edit stands in."""
    paths = [path for path, _ in edits]
    return not any(one != other and other.startswith(f"{one}.") for one in paths for other in paths)


AT_ODDS = ("mounts.hub.options", "models.voice.warm.only_opened")
"""With other edits: what it leaves out when the file is read, or a mistake."""
EDITS = st.lists(
    st.sampled_from([(path, value) for path, value, _ in ROWS if path not in AT_ODDS]),
    max_size=5,
    unique_by=lambda edit: edit[0],
).filter(are_apart)


@given(EDITS, EDITS)
def test_any_two_files(one: list[tuple[str, Any]], two: list[tuple[str, Any]]) -> None:
    old, new = settings(*one), settings(*two)
    found = compare(old, new, {}, {}, root=True)
    assert bool(found) is (old != new)
    assert not compare(new, new, {}, {}, root=True)
    back = compare(new, old, {}, {}, root=True)
    assert set(back.places) == set(found.places)
    assert (set(back.remount), set(back.replace)) == (set(found.remount), set(found.replace))
    assert not {*found.remount} & {*found.replace}
    assert not {*found.credentials} & {*found.remount, *found.replace}
    assert not {*found.restart} & {*found.follow}
    for place in found.places:
        effect = effect_of(place, old, new)
        assert (place in found.in_place) is (
            effect in (Effect.IN_PLACE, Effect.CREDENTIALS, Effect.SWITCH, Effect.RELINK, Effect.LISTEN, Effect.ADMIT)
        )
    if not found.remount and not found.replace and not found.restart and not found.restart_models:
        assert set(found.places) == set(found.in_place)
