"""What a real rclone asks a store with each preset: address, style, version of listings, region of the signature."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.rclone.conf import render
from mountd.settings.load import Places, parse
from mountd.settings.presets import NAMES, NETWORKS, PRESETS, Network, PresetName, host_of
from mountd.settings.stores import HOST_STYLE, PATH_STYLE, is_path_style
from tests.support.refusing_store import Asked, RefusingStore
from tests.support.s3 import ACCESS_KEY_ID, RCLONE, SECRET_ACCESS_KEY, environment

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))


@pytest.fixture
def store() -> Iterator[RefusingStore]:
    with RefusingStore(objects={"a b": b"x"}) as found:
        yield found


def ask(store: RefusingStore, options: dict[str, str], directory: Path, *words: str) -> list[Asked]:
    """The requests of an rclone with this remote; the store is its proxy, so that any host name leads there."""
    endpoint = options.get("endpoint", "").replace("https://", "http://")  # so that the proxy sees what is asked
    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    conf = directory / "rclone.conf"
    conf.write_text(render({"r": options | keys | ({"endpoint": endpoint} if endpoint else {})}))
    store.asked.clear()
    argv = [str(RCLONE), f"--config={conf}", "--retries=1", "--low-level-retries=1", *words]
    subprocess.run(
        argv,
        env=environment(directory) | {"http_proxy": store.address},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return store.asked


def options_of(name: PresetName, network: Network) -> dict[str, str]:
    """As a configuration with this preset comes to them."""
    preset = PRESETS[name]
    region = f"region: {preset.regions[0]}" if preset.needs_region else ""
    endpoint = f"endpoint: {preset.example.lower()}" if preset.example else ""
    rest = ", ".join(each for each in (f"preset: {name}", f"network: {network}", region, endpoint) if each)
    text = f"remotes: {{r: {{{rest}}}}}\nmounts: {{m: {{remote: 'r:data', path: /m}}}}\n"
    remote = parse(text, "x.yaml", PLACES).settings.remotes["r"]
    return {"type": remote.type, **{key: str(value) for key, value in remote.options.items()}}


CASES = [
    (name, network) for name in NAMES for network in NETWORKS if network == "public" or PRESETS[name].has_own_internal
]


@pytest.mark.parametrize(("name", "network"), CASES)
def test_what_rclone_asks(name: PresetName, network: Network, store: RefusingStore, tmp_path: Path) -> None:
    preset, options = PRESETS[name], options_of(name, network)
    if name == "aws":  # rclone knows its addresses, all with TLS: here only what else it sends is seen
        options["endpoint"] = "http://s3.us-east-1.amazonaws.com"
    asked = ask(store, options, tmp_path, "lsf", "r:data")[0]
    host = host_of(options["endpoint"])
    assert asked.host == (host if preset.path_style else f"data.{host}")
    assert asked.style == ("path" if preset.path_style else "host")
    assert asked.list_version == preset.list_version
    assert asked.signing_region == (options.get("region") or "us-east-1")
    assert ("encoding-type" in asked.query) is (options.get("list_url_encode") == "true" or preset.provider in ENCODES)


ENCODES = ("Alibaba", "AWS", "Minio", "Cloudflare", "TencentCOS")
"""Providers with which rclone asks for names as they can stand in an address."""


@pytest.mark.parametrize("name", ["ucloud-us3", "compshare"])
def test_parts_of_uploads_have_the_size_that_the_store_takes(
    name: PresetName, store: RefusingStore, tmp_path: Path
) -> None:
    options = options_of(name, "public")
    found = subprocess.run(
        [str(RCLONE), "config", "providers"], env=environment(tmp_path), capture_output=True, check=True, timeout=60
    )
    assert options["chunk_size"] == "8Mi"
    for key in options.keys() - {"type"}:
        assert f'"Name": "{key}"'.encode() in found.stdout, "an option of rclone"


@pytest.mark.thorough
@pytest.mark.parametrize("provider", sorted(PATH_STYLE | HOST_STYLE))
def test_which_style_a_provider_has(provider: str, store: RefusingStore, tmp_path: Path) -> None:
    for forced in ("true", "false"):
        options = {"type": "s3", "provider": provider, "endpoint": "http://s3.example.com", "force_path_style": forced}
        asked = ask(store, options, tmp_path, "lsf", "r:data")[0]
        assert (asked.style == "path") is is_path_style(options), forced
