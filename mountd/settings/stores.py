"""A remote and the store behind it: presets filled in, and what of endpoint, provider and style does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mountd.settings.presets import (
    NAMES,
    NETWORKS,
    PRESETS,
    Preset,
    address_of,
    host_of,
    is_within,
    preset_of,
    wrong_region,
)
from mountd.settings.remotes import RemoteSettings, Value
from mountd.settings.source import Place
from mountd.settings.words import Finding, did_you_mean

STAND_IN = "http://mountd-stand-in.invalid"
"""The endpoint of a remote with a wrong preset, so that only the preset is reported."""

# From backend/s3/provider/*.yaml of rclone 1.76. Of all others it knows only the host style, whatever is asked for.
PATH_STYLE: frozenset[str] = frozenset(
    (
        *("ArvanCloud", "BizflyCloud", "Ceph", "ChinaMobile", "Cloudflare", "Exaba", "Fastly"),
        *("FileLu", "FlashBlade", "HCP", "IBMCOS", "IDrive", "IONOS", "Liara"),
        *("Magalu", "Mega", "Minio", "Other", "Outscale", "Qiniu", "Rclone"),
        *("Scality", "SeaweedFS", "SpectraLogic", "Zadara", "ZeroServices"),
    )
)
HOST_STYLE: frozenset[str] = frozenset(
    (
        *("AWS", "Alibaba", "Cubbit", "DigitalOcean", "Dreamhost", "GCS", "Hetzner"),
        *("HuaweiOBS", "ImpossibleCloud", "Intercolo", "Leviia", "Linode", "LyveCloud", "Netease"),
        *("OVHcloud", "Petabox", "Rabata", "RackCorp", "Scaleway", "Selectel", "Servercore"),
        *("Storj", "Synology", "TencentCOS", "Wasabi", "Zata"),
    )
)
_OTHERS = {
    "cmecloud.cn": ("China Mobile EOS", "ChinaMobile"),
    "storage.googleapis.com": ("Google Cloud Storage", "GCS"),
    "digitaloceanspaces.com": ("DigitalOcean Spaces", "DigitalOcean"),
    "wasabisys.com": ("Wasabi", "Wasabi"),
    "linodeobjects.com": ("Linode Object Storage", "Linode"),
    "scw.cloud": ("Scaleway", "Scaleway"),
}
"""Stores without a preset: end of the host name → title, provider."""
_TRUE = ("true", "1", "t")
_FALSE = ("false", "0", "f")


def settle(name: str, entry: dict[str, Any]) -> list[Finding]:
    """Replaces the remote's preset by the options that it stands for; explicit ones stay. What is wrong with it.

    `preset` and `network` stay as well, to be shown.
    """
    place: Place = ("remotes", name)
    written = entry.get("preset")
    if "preset" not in entry:
        return [Finding((*place, "network"), "belongs to a preset")] if entry.pop("network", None) is not None else []
    preset = next((each for known, each in PRESETS.items() if known == written), None)
    if preset is None:
        meant = did_you_mean(written, NAMES) if isinstance(written, str) else ""
        del entry["preset"]
        entry.pop("network", None)
        entry.update({"type": entry.get("type") or "s3", "endpoint": entry.get("endpoint") or STAND_IN})
        return [Finding((*place, "preset"), f"is no preset{meant or ': there is ' + ', '.join(NAMES)}")]
    options = _options(preset, entry)
    findings = list(_judge(place, preset, entry, options.get("endpoint", "")))
    if any(not each.warning for each in findings) and preset.provider != "AWS":
        options["endpoint"] = STAND_IN
    entry.update(options | {key: value for key, value in entry.items() if value not in (None, "")})
    return findings


def _options(preset: Preset, entry: Mapping[str, Any]) -> dict[str, str]:
    region, network = entry.get("region"), entry.get("network")
    return preset.options(
        region if isinstance(region, str) else "", next((each for each in NETWORKS if each == network), "public")
    )


def _judge(place: Place, preset: Preset, entry: Mapping[str, Any], address: str) -> Iterator[Finding]:
    """`address`: the preset's, for this region and network."""
    region, endpoint, network = (entry.get(key) for key in ("region", "endpoint", "network"))
    if entry.get("type") not in (None, "", "s3"):
        yield Finding((*place, "type"), "is s3 with this preset: leave it out")
    if not endpoint and preset.needs_endpoint:
        yield Finding((*place, "endpoint"), f"is missing: write the store's address, such as {preset.example}")
    if region and not isinstance(region, str):
        yield Finding((*place, "region"), "must be text where there is a preset")
    elif region:
        if wrong := wrong_region(preset, region):
            yield Finding((*place, "region"), wrong)
    elif preset.needs_region and not (endpoint and preset.public):
        examples = ", ".join(preset.regions[:2])
        yield Finding((*place, "region"), f"is missing: write the region of the bucket, such as {examples}")
    if network is None:
        return
    if endpoint:
        if endpoint != address:
            yield Finding((*place, "network"), "is ignored: endpoint decides", warning=True)
    elif network == "internal" and not preset.internal:
        text = f"mountd knows no internal address of {preset.title}: leave it out, or write the address as endpoint"
        yield Finding((*place, "network"), text)


def is_path_style(options: Mapping[str, Value]) -> bool:
    """Whether rclone writes the bucket's name into the path, or else into the host name."""
    if str(options.get("use_accelerate_endpoint", "")).lower() in _TRUE or options.get("provider") in HOST_STYLE:
        return False
    return str(options.get("force_path_style", "true")).lower() not in _FALSE


def check(place: Place, remote: RemoteSettings) -> Iterator[Finding]:
    """What of an S3 remote does not fit together; warnings, as a proxy or an own domain may make it right."""
    options = remote.options
    provider, endpoint = options.get("provider", ""), options.get("endpoint", "")
    if not isinstance(provider, str) or not isinstance(endpoint, str):
        return
    yield from _provider(place, provider)
    yield from _endpoint(place, provider, endpoint)
    if str(options.get("force_path_style", "")).lower() in _TRUE and provider in HOST_STYLE:
        text = f"has no effect: with provider {provider} rclone always writes the bucket into the host name"
        yield Finding((*place, "force_path_style"), text, warning=True)
    found = preset_of(endpoint)
    if found is None:
        return
    name, preset = found
    if preset.provider == "Other" and provider in ("", "Other", *preset.also):
        yield from _like_preset(place, name, preset, options)
    region, address = options.get("region"), address_of(endpoint)
    if not isinstance(region, str) or not region or address is None:
        return
    if region.removeprefix(preset.wrong_prefix) != address.region:
        text = f"is {region}, and the endpoint's name says {address.region}"
        yield Finding((*place, "region"), text, warning=True)


def _provider(place: Place, provider: str) -> Iterator[Finding]:
    known = PATH_STYLE | HOST_STYLE
    right = next((each for each in known if each.lower() == provider.lower() != ""), None)
    if right is not None and right != provider:
        text = f"is {right} for rclone, which takes {provider} for Other: capitals count"
        yield Finding((*place, "provider"), text, warning=True)


def _endpoint(place: Place, provider: str, endpoint: str) -> Iterator[Finding]:
    """Whether the store behind the endpoint is another one than the provider's."""
    found, host = preset_of(endpoint), host_of(endpoint)
    if found is not None:
        name, preset = found
        title, right, instead = preset.title, (preset.provider, *preset.also), f", or preset: {name} in place of both"
    else:
        other = next((other for domain, other in _OTHERS.items() if is_within(host, domain)), None)
        if other is None:
            return
        title, right, instead = other[0], (other[1],), ""
    if (provider or "Other").lower() not in {each.lower() for each in right}:
        text = f"is {provider or 'Other, as it is not written'}, but {host} is {title}: write {right[0]}{instead}"
        yield Finding((*place, "provider"), text, warning=True)


def _like_preset(place: Place, name: str, preset: Preset, options: Mapping[str, Value]) -> Iterator[Finding]:
    """The options that rclone needs for a store for which it has no provider."""
    if is_path_style(options) and not preset.path_style:
        text = f"must be false: {preset.title} wants the bucket in the host name; preset: {name} does that"
        yield Finding((*place, "force_path_style"), text, warning=True)
    size = preset.more.get("chunk_size")
    if name == "ucloud-us3" and size and not _is_same_size(options.get("chunk_size"), size):
        text = f"must be {size}: {preset.title} takes no other parts of uploads; preset: {name} does that"
        yield Finding((*place, "chunk_size"), text, warning=True)


def _is_same_size(value: Value | None, size: str) -> bool:
    """`8M`, `8Mi`, `8MiB`, `8m` are one to rclone; a number alone is KiB."""
    text = str(value or "").lower().removesuffix("b").removesuffix("i")
    return text in (size.lower().removesuffix("i"), "8192k", "8192")
