"""Every problem that a file can have: the wording, the place and the line of each; all at once."""

# ruff: noqa: E501 - a table reads better with one case a line

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import ConfigError
from mountd.settings.load import Loaded, Places, parse

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
GOOD: dict[str, Any] = {
    "remotes": {"store": {"type": "s3", "endpoint": "https://s3.example.com"}},
    "mounts": {"storage": {"remote": "store:data", "path": "/mnt/storage"}},
    "models": {"hub": {"mount": "storage", "directory": "hub_{version}", "link": "/srv/app/hub", "version": "v1"}},
    "apps": {"webui": {"command": ["python", "webui.py"], "needs": ["hub"]}},
}
SECRET = "{env: NAME}, {file: /path} or {credential: NAME}"
IN_THE_OPEN = f"is a secret in plain text: write {SECRET} instead, or set allow_plain_secrets: true"
ADDRESS = "must be the store's address, such as https://s3.example.com"
MOUNT_2 = {"remote": "store:data", "path": "/mnt/two"}


def parsed(data: Any) -> Loaded:
    return parse(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), "test.yaml", PLACES)


def problems(data: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(data)
    assert caught.value.exit_code == 2
    return [f"{problem.path}: {problem.text}" for problem in caught.value.problems]


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with `value` at the slash-separated path."""
    data = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    at = data
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = value
    return data


def test_the_good_one_is_good() -> None:
    assert parsed(GOOD).warnings == ()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        # keys and kinds
        ("mount", {}, "mount: unknown key, did you mean 'mounts'?"),
        ("mounts/storage/profil", "plain", "mounts.storage.profil: unknown key, did you mean 'profile'?"),
        ("mounts/storage/allow-other", "true", "mounts.storage.allow-other: unknown key, did you mean 'allow_other'?"),
        ("http/tsl", "x", "http.tsl: unknown key, did you mean 'tls'?"),
        ("http/[key]", "x", 'http."[key]": unknown key: here can stand listen, tokens, tls, behind_proxy'),
        ("http/tls", "x", "http.tls: must be a mapping of keys"),
        ("http/tls", {"key": {"file": "/k"}}, "http.tls.certificate: is missing"),
        ("http/tokens", "abc", f"http.tokens: a secret is exactly one of {SECRET}"),
        ("log", [], "log: must be a mapping of keys"),
        ("log", "info", "log: must be a mapping of keys"),
        ("mounts", {}, "mounts: needs at least one mount"),
        ("mounts", None, "mounts: is empty"),
        ("remotes/store", "s3", "remotes.store: must be a mapping of keys"),
        ("remotes/store/type", "S 3", "remotes.store.type: must be the name of an rclone backend, such as s3"),
        ("remotes/Store", {"type": "local"}, "remotes.Store: 'Store' is not a name: lower-case letters, digits, '-' and '_', 32 at most"),
        ("apps/webui/command", "python webui.py", "apps.webui.command: must be a list, such as [a, b]"),
        ("apps/webui/command", [], "apps.webui.command: must not be empty"),
        ("apps/webui/command", ["python", None], "apps.webui.command[1]: is empty"),
        ("apps/webui/command", ["python", {"a": "b"}], "apps.webui.command[1]: must be text"),
        ("apps/webui/environment", {"A": None}, "apps.webui.environment.A: is empty"),
        ("apps/webui/environment", {"A=B": "1"}, 'apps.webui.environment."A=B": is not the name of an environment variable'),
        ("apps/webui/user", "a b", "apps.webui.user: is not the name of a user"),
        ("models/hub/version", None, "models.hub.version: is missing or empty: write it, or `desired` instead"),
        # values
        ("mounts/storage/path", "mnt/x", "mounts.storage.path: 'mnt/x' must be an absolute path"),
        ("mounts/storage/path", "/mnt/../x", "mounts.storage.path: '/mnt/../x' must not contain '..'"),
        ("mounts/storage/path", "/mnt/a\nb", "mounts.storage.path: a path must not contain control characters"),
        ("mounts/storage/path", "/", "mounts.storage.path: must not be /"),
        ("mounts/storage/profile", "output", "mounts.storage.profile: must be 'model-hub', 'outputs', 'small' or 'plain', not 'output'"),
        ("mounts/storage/allow_other", "maybe", "mounts.storage.allow_other: must be true or false, not 'maybe'"),
        ("mounts/storage/uid", "tts", "mounts.storage.uid: must be a whole number, not 'tts'"),
        ("mounts/storage/uid", "-1", "mounts.storage.uid: must be at least 0, not '-1'"),
        ("mounts/storage/umask", "9", "mounts.storage.umask: '9' is not a umask: write three octal digits, such as 022"),
        ("mounts/storage/remote", "store", "mounts.storage.remote: must be REMOTE:BUCKET or REMOTE:BUCKET/PREFIX, such as compshare:index-tts-data"),
        ("mounts/storage/remote", "store:a\nb", "mounts.storage.remote: must be REMOTE:BUCKET or REMOTE:BUCKET/PREFIX, such as compshare:index-tts-data"),
        ("mounts/storage/remote", "store:a\tb", "mounts.storage.remote: must not contain line ends or other control characters"),
        ("mounts/storage/umask", ["022"], "mounts.storage.umask: ['022'] is not a umask: write three octal digits, such as 022"),
        ("apps/webui/umask", None, "apps.webui.umask: None is not a umask: write three octal digits, such as 022"),
        ("mounts/storage/cache/max_size", "30X", "mounts.storage.cache.max_size: '30X' is not a size: write 16M, 30G or 5%"),
        ("mounts/storage/cache/min_free", "5", "mounts.storage.cache.min_free: '5' has no unit: write 16M, 30G or 5%"),
        ("mounts/storage/cache/max_size", "0", "mounts.storage.cache.max_size: must be more than 0; leave it out for no limit"),
        ("mounts/storage/cache/min_free", "101%", "mounts.storage.cache.min_free: '101%' is more than the whole file system"),
        ("mounts/storage/cache/min_free", "99%", "mounts.storage.cache.min_free: leaves no room for the cache: write 5% or a size"),
        ("mounts/storage/health", {"interval": "2"}, "mounts.storage.health.interval: '2' is not a duration: write 500ms, 2s, 5m or 1h"),
        ("mounts/storage/health", {"timeout": "0s"}, "mounts.storage.health.timeout: must be more than 0s, not '0s'"),
        ("mounts/storage/health", {"backend": "1s"}, "mounts.storage.health.backend: must be at least 2s, not '1s'"),
        ("mounts/storage/health", {"failures": "0"}, "mounts.storage.health.failures: must be at least 1, not '0'"),
        ("models/hub/directory", "hub", "models.hub.directory: must contain {version} exactly once, and no other braces"),
        ("models/hub/directory", "{version}/{x}", "models.hub.directory: must contain {version} exactly once, and no other braces"),
        ("models/hub/directory", "/{version}", "models.hub.directory: '/{version}' must be a relative path without '..'"),
        ("models/hub/required", ["../x"], "models.hub.required[0]: '../x' must be a relative path without '..'"),
        ("models/hub/version", "latest", "models.hub.version: cannot use 'latest' as a version: such a name can mean other files tomorrow"),
        ("models/hub/keep", "1", "models.hub.keep: must be at least 2, not '1'"),
        ("models/hub/sync", {"auto": "true"}, "models.hub.sync.auto: unknown key, did you mean 'automatic'?"),
        ("models/hub/sync", {"automatic": "never"}, "models.hub.sync.automatic: must be true or false, not 'never'"),
        ("models/hub/sync", {"retry": {"limit": "-1"}}, "models.hub.sync.retry.limit: must be at least 0, not '-1'"),
        ("models/hub/sync", {"retry": {"limit": "101"}}, "models.hub.sync.retry.limit: must be at most 100, not '101'"),
        ("models/hub/sync", {"retry": {"initial": "2m"}}, "models.hub.sync.retry.max: must not be less than initial"),
        ("models/hub/watch", {"for": "30"}, "models.hub.watch.for: '30' is not a duration: write 500ms, 2s, 5m or 1h"),
        ("models/hub/watch", {"period": "30s"}, "models.hub.watch.period: unknown key: here can stand for, crashes"),
        ("models/hub/watch", {"crashes": "0"}, "models.hub.watch.crashes: must be at least 1, not '0'"),
        ("models/hub/gates", {"http": "http://x"}, "models.hub.gates: must be a list, such as [a, b]"),
        ("models/hub/gates", [{}], "models.hub.gates[0]: write exactly one of http, command and prometheus"),
        ("models/hub/gates", [{"http": "http://x", "command": ["y"]}], "models.hub.gates[0]: write exactly one of http, command and prometheus"),
        ("models/hub/gates", [{"http": "http://x"}, {"htpp": "http://x"}], "models.hub.gates[1].htpp: unknown key, did you mean 'http'?"),
        ("models/hub/gates", [{"http": "ftp://x"}], "models.hub.gates[0].http: must be an http:// or https:// address, such as http://127.0.0.1:7860/config"),
        ("models/hub/gates", [{"http": "http://me:abc@x"}], "models.hub.gates[0].http: must not hold a user or a password"),
        ("models/hub/gates", [{"http": "http://x", "max": "1"}], "models.hub.gates[0]: max belongs to prometheus"),
        ("models/hub/gates", [{"http": "http://x", "max": "0"}], "models.hub.gates[0]: max belongs to prometheus"),
        ("models/hub/gates", [{"command": []}], "models.hub.gates[0].command: must not be empty"),
        ("models/hub/gates", [{"command": ["x"], "timeout": "0s"}], "models.hub.gates[0].timeout: must be more than 0s, not '0s'"),
        ("models/hub/gates", [{"prometheus": "http://p:9090", "max": "1"}], "models.hub.gates[0]: prometheus needs query as well"),
        ("models/hub/gates", [{"prometheus": "http://p:9090", "query": "up"}], "models.hub.gates[0]: prometheus needs max as well"),
        ("models/hub/gates", [{"prometheus": "http://p:9090", "query": "up", "max": "inf"}], "models.hub.gates[0].max: must be a number, not 'inf'"),
        ("models/hub/gates", [{"prometheus": "http://p:9090", "query": "u" * 4001, "max": "1"}], "models.hub.gates[0].query: must not have more than 4000 characters"),
        ("models/hub/gates", [{"prometheus": "http://p:9090/api/v1/query", "query": "up", "max": "1"}], "models.hub.gates[0].prometheus: must be the address of Prometheus alone, such as http://127.0.0.1:9090"),
        ("models/hub/gates", [{"http": "http://x"}] * 21, "models.hub.gates: must not have more than 20 entries"),
        ("apps/webui/ready", {}, "apps.webui.ready: write exactly one of http and command"),
        ("apps/webui/ready", {"http": "https://x"}, "apps.webui.ready.http: must be an http:// address, such as http://127.0.0.1:7860/config"),
        ("apps/webui/ready", {"http": "http://[x"}, "apps.webui.ready.http: must be an http:// address, such as http://127.0.0.1:7860/config"),
        ("apps/webui/stop", {"signal": "KILL"}, "apps.webui.stop.signal: 'KILL' cannot stop a program: use one of SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2"),
        ("apps/webui/restart", {"limit": "5"}, "apps.webui.restart.limit: '5' is not a limit: write 5 in 10m"),
        ("apps/webui/restart", {"after": ["reboot"]}, "apps.webui.restart.after[0]: must be 'crash', 'remount' or 'switch', not 'reboot'"),
        ("apps/webui/restart", {"backoff": {"factor": "nan"}}, "apps.webui.restart.backoff.factor: must be a number, not 'nan'"),
        ("apps/webui/restart", {"backoff": {"initial": "2m"}}, "apps.webui.restart.backoff.max: must not be less than initial"),
        ("http/listen", "8780", "http.listen: must be HOST:PORT, such as 127.0.0.1:8780"),
        ("http/listen", "127.0.0.1:65536", "http.listen: a port is 0 to 65535"),
        # names that must exist
        ("mounts/storage/remote", "stor:data", "mounts.storage.remote: there is no remote 'stor', did you mean 'store'?"),
        ("mounts/storage/remote", "xyz:data", "mounts.storage.remote: there is no remote 'xyz'; there is 'store'"),
        ("mounts/storage/remote", "store,key=abc:data", "mounts.storage.remote: must be REMOTE:BUCKET: write the options under remotes"),
        ("models/hub/mount", "strage", "models.hub.mount: there is no mount 'strage', did you mean 'storage'?"),
        ("apps/webui/needs", ["hbu"], "apps.webui.needs[0]: there is no model or mount 'hbu', did you mean 'hub'?"),
        ("apps/hub", {"command": ["x"]}, "apps.hub: the name is taken by models.hub: mounts, models, apps and outboxes share one set of names"),
        # paths
        ("mounts/two", MOUNT_2 | {"path": "/mnt/storage"}, "mounts.two.path: is the same path as mounts.storage.path (/mnt/storage)"),
        ("mounts/two", MOUNT_2 | {"path": "/mnt/storage/x"}, "mounts.two.path: must not lie in mounts.storage.path (/mnt/storage)"),
        ("mounts/two", MOUNT_2 | {"cache": {"dir": "/var/cache/mountd/storage"}}, "mounts.two.cache.dir: is the same path as mounts.storage.cache.dir (/var/cache/mountd/storage)"),
        ("mounts/two", MOUNT_2 | {"cache": {"dir": "/var/cache/mountd"}}, "mounts.storage.cache.dir: must not lie in mounts.two.cache.dir (/var/cache/mountd)"),
        ("mounts/two", MOUNT_2 | {"path": "/var/cache/mountd/storage/x"}, "mounts.two.path: must not lie in mounts.storage.cache.dir (/var/cache/mountd/storage)"),
        ("mounts/two", MOUNT_2 | {"path": "/srv/app/hub/x"}, "mounts.two.path: must not lie in models.hub.link (/srv/app/hub)"),
        ("models/two", GOOD["models"]["hub"], "models.two.link: is the same path as models.hub.link (/srv/app/hub)"),
        ("models/hub/link", "/mnt/storage", "models.hub.link: must be on local disk, but lies in mounts.storage.path (/mnt/storage)"),
        ("models/hub/link", "/mnt/storage/hub", "models.hub.link: must be on local disk, but lies in mounts.storage.path (/mnt/storage)"),
        ("models/hub/link", "/var/lib", "models.hub.link: is replaced at every switch, but state (/var/lib/mountd) lies there"),
        ("mounts/storage/cache/dir", "/mnt/storage/c", "mounts.storage.cache.dir: must be on local disk, but lies in mounts.storage.path (/mnt/storage)"),
        ("state", "/mnt/storage/s", "state: must be on local disk, but lies in mounts.storage.path (/mnt/storage)"),
        ("remotes/store/token", {"file": "/mnt/storage/t"}, "remotes.store.token.file: must be on local disk, but lies in mounts.storage.path (/mnt/storage)"),
        # sockets
        ("control/socket", "/" + "s" * 100, "control.socket: the path of a Unix socket has 100 bytes at most, this one 101"),
        ("runtime", "/" + "r" * 79, f"runtime: is too long: the path of a Unix socket has 100 bytes at most, and /{'r' * 79}/private/notify-storage.sock has 108"),
        # remotes
        ("remotes/store", {"type": "s3"}, "remotes.store.endpoint: is missing: write the store's address, such as https://s3.example.com, or provider: AWS for Amazon's"),
        ("remotes/store/endpoint", None, "remotes.store.endpoint: is empty"),
        ("remotes/store/endpoint", "ftp://x", f"remotes.store.endpoint: {ADDRESS}"),
        ("remotes/store/endpoint", "a b", f"remotes.store.endpoint: {ADDRESS}"),
        ("remotes/store/endpoint", "'http://x'", f"remotes.store.endpoint: {ADDRESS}"),
        ("remotes/store/endpoint", "http://", f"remotes.store.endpoint: {ADDRESS}"),
        ("remotes/store/endpoint", "x:99999", f"remotes.store.endpoint: {ADDRESS}"),
        ("remotes/store/access-key-id", "x", "remotes.store.access-key-id: is not the name of an option of rclone, did you mean 'access_key_id'?"),
        ("remotes/store/region", "a\nb = c", "remotes.store.region: must not contain line ends or other control characters"),
        ("remotes/store/region", ["a"], "remotes.store.region: must be text or a reference to a secret"),
        # secrets
        ("remotes/store/secret_access_key", "abc", f"remotes.store.secret_access_key: {IN_THE_OPEN}"),
        ("remotes/store/secret_acess_key", "abc", f"remotes.store.secret_acess_key: {IN_THE_OPEN}"),
        ("remotes/store/paswrod", "abc", f"remotes.store.paswrod: {IN_THE_OPEN}"),
        ("remotes/store/url", "https://me:abc@x", f"remotes.store.url: {IN_THE_OPEN}"),
        ("apps/webui/environment", {"HF_TOKEN": "abc"}, f"apps.webui.environment.HF_TOKEN: {IN_THE_OPEN}"),
        ("remotes/store/token", {"evn": "X"}, "remotes.store.token: unknown key 'evn', did you mean 'env'?"),
        ("remotes/store/token", {"abc": None}, f"remotes.store.token: a secret is exactly one of {SECRET}"),
        ("remotes/store/token", {}, f"remotes.store.token: a secret is exactly one of {SECRET}"),
        ("remotes/store/token", {"env": "A", "file": "/b"}, f"remotes.store.token: a secret is exactly one of {SECRET}"),
        ("remotes/store/token", {"file": "abc"}, "remotes.store.token: the path of a secret must be absolute"),
        ("remotes/store/token", {"env": "a b"}, "remotes.store.token.env: must be the name of an environment variable, such as MOUNTD_SECRET"),
        ("remotes/store/token", {"credential": "../x"}, "remotes.store.token.credential: must be the name of a systemd credential, such as secret_key"),
        # options
        ("mounts/storage/options/config", "/x", "mounts.storage.options.config: cannot be set here: mountd writes rclone.conf itself"),
        ("mounts/storage/options/--cache-dir", "/x", "mounts.storage.options.--cache-dir: cannot be set here: write it as cache.dir"),
        ("mounts/storage/options/rc", "true", "mounts.storage.options.rc: cannot be set here: mountd runs rclone's remote control itself"),
        ("mounts/storage/options/--rc_addr", "x", "mounts.storage.options.--rc_addr: cannot be set here: mountd runs rclone's remote control itself"),
        ("mounts/storage/options/daemon_wait", "1s", "mounts.storage.options.daemon_wait: cannot be set here: mountd keeps rclone in the foreground and watches it"),
        ("mounts/storage/options/log-file", "/x", "mounts.storage.options.log-file: cannot be set here: mountd reads rclone's log from a pipe; `mountd logs` shows it"),
        ("mounts/storage/options/allow-non-empty", "true", "mounts.storage.options.allow-non-empty: cannot be set here: it would hide files; empty the mount point instead"),
        ("mounts/storage/options/s3-secret-access-key", "abc", "mounts.storage.options.s3-secret-access-key: is a secret, which a command line would show to everybody: write it under remotes"),
        ("mounts/storage/options/a b", "x", 'mounts.storage.options."a b": is not the name of a flag of rclone'),
        ("mounts/storage/options/debug-fuse", None, "mounts.storage.options.debug-fuse: is empty: write true for a flag without a value"),
        ("mounts/storage/options/x", {"a": "b"}, "mounts.storage.options.x: must be text, true, false or a list of texts"),
        ("mounts/storage/options/x", "a\nb", "mounts.storage.options.x: must not contain line ends or other control characters"),
        ("mounts/storage/options", {"a-b": "1", "--a_b": "2"}, "mounts.storage.options.--a_b: is the same flag as 'a-b'"),
    ],
)  # fmt: skip
def test_one_problem(path: str, value: Any, problem: str) -> None:
    assert problems(changed(path, value)) == [problem]


@pytest.mark.parametrize("missing", ["remotes", "mounts"])
def test_what_must_be_there(missing: str) -> None:
    data = {key: value for key, value in GOOD.items() if key != missing}
    assert f"{missing}: is missing" in problems(data)


@pytest.mark.parametrize(
    ("path", "value", "warning"),
    [
        ("options", {"uid": "5"}, "options.uid: is ignored: mounts.storage.uid decides, write it there"),
        ("options", {"--vfs_cache_max_size": "5G"}, "options.--vfs_cache_max_size: is ignored: mounts.storage.cache.max_size decides, write it there"),
        ("options", {"devname": "x"}, "options.devname: is ignored: mountd finds its mounts by the name it gives them"),
        ("options", {"read-only": "false"}, "options.read-only: is ignored: the profile model-hub is read-only, outputs and plain are not"),
        ("health", {"timeout": "5m"}, "health: a hung mount would be noticed after 10 minutes only"),
    ],
)  # fmt: skip
def test_warnings(path: str, value: Any, warning: str) -> None:
    loaded = parsed(changed(f"mounts/storage/{path}", value))
    assert [f"{each.path}: {each.text}" for each in loaded.warnings] == [f"mounts.storage.{warning}"]
    assert loaded.settings.mounts["storage"].options == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("remotes/store", {"type": "s3", "provider": "AWS"}),
        ("remotes/store", {"type": "local"}),
        ("remotes/store/endpoint", "s3.example.com"),
        ("remotes/store/endpoint", "minio_1:9000"),
        ("remotes/store/endpoint", "http://[::1]:9000/storage/v1/s3"),
        ("remotes/store/token_url", "https://x"),
        ("remotes/store/ask_password", "true"),
        ("remotes/store/private_key_file", "/x"),
        ("remotes/store/sse_kms_key_id", "x"),
        ("apps/webui/environment", {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "5"}),
        ("mounts/storage/options", {"read-only": "true"}),
        ("mounts/two", MOUNT_2 | {"path": "/mnt/storage2"}),
        ("control/socket", "/" + "s" * 99),
        ("http/listen", "[::1]:0"),
        ("http/listen", ":65535"),
        ("models/hub/sync", None),
        ("models/hub/watch", {"for": "0s", "crashes": "2"}),
        ("models/hub/gates", [{"prometheus": "http://p:9090", "query": "errors", "max": "0"}]),
        (
            "models/hub/gates",
            [{"prometheus": "https://p/prom/", "query": 'up{a="b"}', "max": "-2.5"}, {"http": "https://x/y?z"}],
        ),
    ],
)
def test_no_problem(path: str, value: Any) -> None:
    assert parsed(changed(path, value)).warnings == ()


def test_a_plain_secret_is_taken_when_it_is_allowed() -> None:
    data = changed("remotes/store/secret_access_key", "abc") | {"allow_plain_secrets": True}
    assert parsed(data).settings.remotes["store"].options["secret_access_key"] == "abc"


SEVERAL = """\
remotes:
  store: {type: s3, endpoint: "http://x"}
mounts:
  storage:
    remote: stroe:data
    path: /mnt/storage
    cache:
      max_size: 30X
    cache: {}
models:
  hub:
    mount: storage
    directory: hub
    link: /mnt/storage/hub
    verzion: v1
logg: {}
"""


def test_all_problems_at_once_by_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SEVERAL, "several.yaml", PLACES)
    assert caught.value.text == "\n".join(
        [
            "cannot use several.yaml: 8 problems",
            "  line 5: mounts.storage.remote: there is no remote 'stroe', did you mean 'store'?",
            "  line 8: mounts.storage.cache.max_size: '30X' is not a size: write 16M, 30G or 5%",
            "  line 9: mounts.storage.cache: is written twice, first in line 7",
            "  line 11: models.hub.version: is missing or empty: write it, or `desired` instead",
            "  line 13: models.hub.directory: must contain {version} exactly once, and no other braces",
            "  line 14: models.hub.link: must be on local disk, but lies in mounts.storage.path (/mnt/storage)",
            "  line 15: models.hub.verzion: unknown key, did you mean 'version'?",
            "  line 16: logg: unknown key, did you mean 'log'?",
        ]
    )
    assert caught.value.hint == "see it checked again: mountd config check -c several.yaml"


BROKEN = """\
remotes:
  Store:
    type: s3
    endpoint: x y
    secret_key: abc
  two: {type: s3, endpoint: "http://x", token: {env: A, file: /b}, secret_access_key: abc}
mounts:
  storage: {remote: "compsare:data", path: mnt/x, cache: {min_free: 5, dir: x}, health: {failures: 0}}
  empty: {remote: data, cache: {dir: /c}}
models:
  hub: {mount: storag, directory: hub, link: rel, version: latest, watch: {for: 5}}
apps:
  webui:
    command: [x, null]
    needs: [hbu, Bad]
    environment: {HF_TOKEN: abc, "A B": x}
    ready: {}
  hub: {}
log: {level: all}
state: here
"""


def test_what_is_broken_hides_nothing_around_it() -> None:
    """Names, secrets and paths are checked in the same pass, also in an entry of which nothing else is right."""
    with pytest.raises(ConfigError) as caught:
        parse(BROKEN, "broken.yaml", PLACES)
    assert [f"{each.line} {each.path}: {each.text}" for each in caught.value.problems] == [
        "2 remotes.Store: 'Store' is not a name: lower-case letters, digits, '-' and '_', 32 at most",
        f"4 remotes.Store.endpoint: {ADDRESS}",
        f"5 remotes.Store.secret_key: {IN_THE_OPEN}",
        f"6 remotes.two.secret_access_key: {IN_THE_OPEN}",
        f"6 remotes.two.token: a secret is exactly one of {SECRET}",
        "8 mounts.storage.cache.dir: 'x' must be an absolute path",
        "8 mounts.storage.cache.min_free: '5' has no unit: write 16M, 30G or 5%",
        "8 mounts.storage.health.failures: must be at least 1, not '0'",
        "8 mounts.storage.path: 'mnt/x' must be an absolute path",
        "8 mounts.storage.remote: there is no remote 'compsare'; there is 'Store', 'two'",
        "9 mounts.empty.path: is missing",
        "9 mounts.empty.remote: must be REMOTE:BUCKET or REMOTE:BUCKET/PREFIX, such as compshare:index-tts-data",
        "11 models.hub.directory: must contain {version} exactly once, and no other braces",
        "11 models.hub.link: 'rel' must be an absolute path",
        "11 models.hub.mount: there is no mount 'storag', did you mean 'storage'?",
        "11 models.hub.version: cannot use 'latest' as a version: such a name can mean other files tomorrow",
        "11 models.hub.watch.for: '5' is not a duration: write 500ms, 2s, 5m or 1h",
        "14 apps.webui.command[1]: is empty",
        "15 apps.webui.needs[0]: there is no model or mount 'hbu', did you mean 'hub'?",
        "15 apps.webui.needs[1]: 'Bad' is not a name: lower-case letters, digits, '-' and '_', 32 at most",
        '16 apps.webui.environment."A B": is not the name of an environment variable',
        f"16 apps.webui.environment.HF_TOKEN: {IN_THE_OPEN}",
        "17 apps.webui.ready: write exactly one of http and command",
        "18 apps.hub: the name is taken by models.hub: mounts, models, apps and outboxes share one set of names",
        "18 apps.hub.command: is missing",
        "19 log.level: must be 'debug', 'info', 'warning' or 'error', not 'all'",
        "20 state: 'here' must be an absolute path",
    ]


def test_a_file_without_mounts_is_checked_as_well() -> None:
    data = {key: value for key, value in changed("remotes/store/token", "abc").items() if key != "mounts"}
    assert problems(data) == ["mounts: is missing", f"remotes.store.token: {IN_THE_OPEN}"]


def test_a_text_that_is_no_mapping() -> None:
    for text in ("- a\n", "hello\n", "~\n"):
        with pytest.raises(ConfigError) as caught:
            parse(text, "x.yaml", PLACES)
        assert [str(each) for each in caught.value.problems] == [
            "line 1: must be a mapping of keys: remotes, mounts, models, apps …"
        ]
