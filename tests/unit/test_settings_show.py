"""What is generated from the settings: the JSON Schema, the effective configuration, the flags of the profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.conf import render_masked
from mountd.settings.jsonschema import generate, render
from mountd.settings.load import Places, load, parse
from mountd.settings.masking import HIDDEN, effective
from mountd.settings.profiles import flags

CONFIG = Path(__file__).parents[2] / "config"
PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
VALIDATOR = jsonschema.Draft202012Validator(generate())
FILES = sorted(CONFIG.glob("*.yaml"))


def reparsed(shown: dict[str, Any], places: Places = PLACES) -> Any:
    return parse(yaml.safe_dump(shown, allow_unicode=True), "shown.yaml", places)


def test_the_committed_schema_is_the_generated_one() -> None:
    assert (CONFIG / "mountd.schema.json").read_text(encoding="utf-8") == render(), (
        "generate it: mountd config schema > config/mountd.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(generate())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_files_we_ship_fit_the_schema(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_schema_takes_what_a_person_writes() -> None:
    VALIDATOR.validate(
        yaml.safe_load("""\
remotes:
  s: {type: s3, chunk_size: 5, force_path_style: true, token: {env: A}}
  p: {preset: aliyun-oss, region: cn-hangzhou, network: internal, chunk_size: 8M, secret_access_key: {file: /k}}
mounts:
  m:
    remote: s:b
    path: /m
    uid: 1000
    umask: 022
    allow_other: true
    cache: {max_size: 1048576B, min_free: 0}
    options: {a: 1, b: true, c: 5M, d: [1, x]}
    health: {failures: 2, interval: 500ms}
models: {h: {mount: m, directory: "a/{version}", link: /h, version: 1.10, keep: 3, watch: {for: 0},
  warm: {level: data, adopt: [/data], limit: 20M, only_opened: true},
  gates: [{command: [say, 1]}, {prometheus: "http://p", query: up, max: 1.5, timeout: 5s}, {http: "https://x"}]}}
apps: {w: {command: [x, --port, 7860], needs: [m, {model: h, level: metadata}],
  environment: {A: 1, B: true}, restart: {backoff: {factor: 2}}, ready: {http: "http://x"}}}
http: {listen: "[::]:8780", tokens: {file: /t}, behind_proxy: true,
  tls: {certificate: {file: /c}, key: {credential: k}}}
""")
    )


GATE = (
    "{remotes: {}, mounts: {m: {remote: 's:b', path: /m}},"
    " models: {h: {mount: m, directory: 'a/{version}', link: /h, version: v1, gates: [GATE]}}}"
)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{remotes: {}, mounts: {}}",
        "{remotes: {}, mounts: {A B: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {preset: aliyun}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {preset: aws, network: vpc}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {type: s3, network: internal}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {type: s3, token: {evn: X}}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {s: {type: s3, token: {env: X, file: /x}}}, mounts: {m: {remote: 's:b', path: /m}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m, profil: x}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: m}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m, health: {interval: 2}}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m, cache: {max_size: 30X}}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m, cache: {max_size: 5}}}}",
        GATE.replace("GATE", "{http: 'http://x', query: up}"),
        GATE.replace("GATE", "{http: 'http://x', command: [y]}"),
        GATE.replace("GATE", "{prometheus: 'http://x', query: up}"),
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m}}, apps: {w: {command: [x], ready: {timeout: 1m}}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m}}, apps: {w: {command: [x], needs: [{model: h}]}}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /}}, apps: {w: {command: [x], needs: [{level: pin}]}}}",
        GATE.replace("gates: [GATE]", "warm: {limit: 5%}"),
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m}}, http: {tokens: /t}}",
        "{remotes: {}, mounts: {m: {remote: 's:b', path: /m}}, http: {tls: {key: {file: /k}}}}",
        GATE.replace("gates: [GATE]", "warm: {level: all}"),
    ],
)
def test_the_schema_refuses(text: str) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_schema_shows_defaults_as_people_write_them() -> None:
    definitions = generate()["$defs"]
    assert definitions["HealthSettings"]["properties"]["timeout"]["default"] == "2s"
    assert definitions["CacheSettings"]["properties"]["min_free"]["default"] == "5%"
    assert definitions["StopSettings"]["properties"]["signal"]["default"] == "SIGTERM"
    assert definitions["RestartSettings"]["properties"]["limit"]["default"] == "5 in 10m"
    assert generate()["required"] == ["remotes", "mounts"]
    assert definitions["MountSettings"]["required"] == ["remote", "path"]
    assert "required" not in definitions["CacheSettings"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_shown_can_be_written(path: Path) -> None:
    settings = load(path, places=PLACES).settings
    shown = effective(settings)
    VALIDATOR.validate(shown)
    again = reparsed(shown, Places(Path("/other/a"), Path("/other/b"), Path("/other/c"))).settings
    if path.name == "demo.yaml":
        assert shown["remotes"]["demo"]["secret_access_key"] == HIDDEN
        assert again.model_copy(update={"remotes": settings.remotes}) == settings
    else:
        assert again == settings


texts = st.text(alphabet=st.sampled_from("ab7.~:#'\"-{}[] é模"), min_size=1, max_size=12)
durations = st.integers(1, 10**9).map(lambda ms: f"{ms}ms")
mounts = st.fixed_dictionaries(
    {"remote": st.just("store:data"), "path": st.just("/mnt/storage")},
    optional={
        "profile": st.sampled_from(["model-hub", "outputs", "small", "plain"]),
        "allow_other": st.booleans(),
        "uid": st.integers(0, 2**31),
        "umask": st.sampled_from(["022", "077", "000"]),
        "cache": st.fixed_dictionaries(
            {},
            optional={"max_size": st.integers(1, 2**50).map(lambda size: f"{size}B"), "min_free": st.just("12.5%")},
        ),
        "options": st.dictionaries(
            st.sampled_from(["vfs-read-ahead", "links", "x"]), texts | st.booleans() | st.lists(texts)
        ),
        "health": st.fixed_dictionaries(
            {}, optional={"interval": durations, "timeout": durations, "failures": st.integers(1, 9)}
        ),
    },
)
apps = st.fixed_dictionaries(
    {"command": st.lists(texts, min_size=1)},
    optional={
        "needs": st.lists(st.sampled_from(["hub", "storage"]) | st.just({"model": "hub", "level": "metadata"})),
        "environment": st.dictionaries(st.sampled_from(["A", "B_C"]), texts | st.just({"env": "SECRET"})),
        "ready": st.fixed_dictionaries({"command": st.lists(texts, min_size=1), "timeout": durations}),
        "stop": st.fixed_dictionaries({"signal": st.sampled_from(["INT", "SIGTERM", "usr1"]), "grace": durations}),
        "restart": st.fixed_dictionaries({"after": st.just([]), "limit": st.just("3 in 90s")}),
    },
)


gates = st.one_of(
    st.fixed_dictionaries({"http": st.just("https://x/y?z")}, optional={"timeout": durations}),
    st.fixed_dictionaries({"command": st.lists(texts, min_size=1)}, optional={"timeout": durations}),
    st.fixed_dictionaries(
        {"prometheus": st.just("http://p:9090"), "query": texts, "max": st.floats(-1e9, 1e9, allow_nan=False).map(str)}
    ),
)
models = st.fixed_dictionaries(
    {
        "mount": st.just("storage"),
        "directory": st.just("hub_{version}"),
        "link": st.just("/l"),
        "version": st.just("v1"),
    },
    optional={
        "keep": st.integers(2, 9).map(str),
        "warm": st.fixed_dictionaries(
            {},
            optional={
                "level": st.sampled_from(["metadata", "pin"]),
                "adopt": st.lists(st.sampled_from(["/data", "/srv/模 型"]), max_size=2),
                "limit": st.integers(1, 2**60).map(lambda rate: f"{rate}B"),
            },
        ),
        "sync": st.fixed_dictionaries(
            {}, optional={"automatic": st.booleans(), "retry": st.fixed_dictionaries({"limit": st.integers(0, 9)})}
        ),
        "watch": st.fixed_dictionaries({}, optional={"for": durations | st.just("0"), "crashes": st.integers(1, 9)}),
        "gates": st.lists(gates, max_size=3),
    },
)


@given(mounts, models, apps)
def test_showing_and_reading_are_inverse(mount: dict[str, Any], model: dict[str, Any], app: dict[str, Any]) -> None:
    data = {
        "remotes": {"store": {"type": "s3", "endpoint": "http://x", "token": {"file": "/t"}}},
        "mounts": {"storage": mount},
        "models": {"hub": model},
        "apps": {"webui": app},
    }
    settings = reparsed(data).settings
    shown = effective(settings)
    VALIDATOR.validate(shown)
    assert reparsed(shown).settings == settings


def test_of_the_tcp_port_places_are_shown_and_no_secrets() -> None:
    http = {
        "listen": "127.0.0.1:8780",
        "tokens": {"file": "/t"},
        "tls": {"certificate": {"file": "/c"}, "key": {"credential": "k"}},
        "behind_proxy": False,
    }
    data = {"remotes": {"s": {"type": "local"}}, "mounts": {"m": {"remote": "s:", "path": "/m"}}, "http": http}
    assert effective(reparsed(data).settings)["http"] == http


def test_plain_secrets_are_hidden_wherever_they_are() -> None:
    text = """\
allow_plain_secrets: true
remotes: {s: {type: webdav, url: "https://me:abc1@x", pass: abc2, user: me, beerer_token: abc4, paswrod: abc5}}
mounts: {m: {remote: "s:", path: /m}}
apps: {w: {command: [x], environment: {HF_TOKEN: abc3, A: b}}}
"""
    shown = effective(parse(text, "x.yaml", PLACES).settings)
    hidden = dict.fromkeys(("url", "pass", "beerer_token", "paswrod"), HIDDEN)
    assert shown["remotes"]["s"] == {"type": "webdav", "user": "me", **hidden}
    assert shown["apps"]["w"]["environment"] == {"HF_TOKEN": HIDDEN, "A": "b"}


def test_a_secret_inside_of_something_else_is_hidden_too() -> None:
    text = """\
remotes:
  s:
    type: webdav
    url: "https://x/dav?sig=SEEN&a=b"
    bearer_token_command: "get SEEN"
    headers: "Cookie,SEEN,X-A,SEEN"
  u: {type: union, upstreams: "s:a s,bearer_token=SEEN:b", user: me}
mounts:
  m:
    remote: "s:"
    path: /m
    options: {header: ["Authorization: Bearer SEEN"], links: true}
models:
  v:
    mount: m
    directory: "{version}"
    link: /l
    version: v1
    gates:
      - {http: "http://h/x?token=SEEN&n=1"}
      - {command: [curl, -H, "Authorization: Bearer SEEN", --api-key=SEEN, --token, SEEN, "http://h/?SEENSEEN"]}
      - {command: [sh, -c, "curl -H 'Cookie: a=SEEN' http://h -o /x"]}
apps:
  w:
    command: [python, web.py, --port, "7860", --password, SEEN]
    environment: {URL: "http://h/?key=SEEN"}
    ready: {http: "http://127.0.0.1:1/?key=SEEN"}
"""
    found = parse(text, "x.yaml", PLACES)
    shown = effective(found.settings)
    assert "SEEN" not in str(shown)
    assert shown["remotes"]["u"]["user"] == "me"
    assert shown["mounts"]["m"]["options"]["links"] is True
    assert shown["models"]["v"]["gates"][0]["http"] == f"http://h/x?token={HIDDEN}&n={HIDDEN}"
    assert shown["models"]["v"]["gates"][2]["command"][2] == f"curl -H 'Cookie: {HIDDEN}' http://h -o /x"
    assert shown["apps"]["w"]["command"][:4] == ["python", "web.py", "--port", "7860"]
    remotes = found.settings.remotes.items()
    assert "SEEN" not in render_masked({name: {"type": each.type, **each.options} for name, each in remotes})
    warned = {warning.path for warning in found.warnings}
    assert {"remotes.s.headers", "remotes.u.upstreams", "mounts.m.options.header"} <= warned


def test_profiles() -> None:
    assert flags("model-hub", "s3") == {
        "read-only": True,
        "vfs-cache-mode": "full",
        "vfs-cache-max-age": "8760h",
        "use-server-modtime": True,
        "dir-cache-time": "1000h",
        "attr-timeout": "1s",
        "vfs-handle-caching": "0",
        "vfs-read-ahead": "256M",
        "buffer-size": "1M",
        "contimeout": "10s",
        "timeout": "60s",
        "low-level-retries": "3",
        "poll-interval": "0",
        "s3-no-check-bucket": True,
    }
    assert flags("model-hub", "s3").keys() <= flags("small", "s3").keys()
    assert "s3-no-check-bucket" not in flags("model-hub", "webdav")
    assert "read-only" not in flags("plain", "s3")
    assert flags("outputs", "webdav") == {
        "vfs-cache-mode": "full",
        "vfs-write-back": "2s",
        "vfs-cache-max-age": "24h",
        "vfs-cache-max-size": "10G",
        "vfs-handle-caching": "0",
        "dir-cache-time": "1m",
        "attr-timeout": "1s",
        "buffer-size": "16M",
        "contimeout": "10s",
        "timeout": "60s",
        "low-level-retries": "3",
    }
