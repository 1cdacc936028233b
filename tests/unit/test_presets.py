"""Presets of stores: what each comes to in rclone.conf, what is wrong with one, and what of a remote does not fit."""

# ruff: noqa: E501 - a table reads better with one case a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import ConfigError
from mountd.rclone.conf import render
from mountd.settings.load import Loaded, Places, parse
from mountd.settings.masking import effective
from mountd.settings.presets import NAMES, PRESETS, address_of, preset_of
from mountd.settings.stores import HOST_STYLE, PATH_STYLE

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))

RENDERED = {
    "aliyun-oss, region: cn-hangzhou": "endpoint = https://oss-cn-hangzhou.aliyuncs.com|force_path_style = false|list_version = 2|provider = Alibaba|region = cn-hangzhou",
    "aliyun-oss, region: cn-hangzhou, network: internal": "endpoint = https://oss-cn-hangzhou-internal.aliyuncs.com|force_path_style = false|list_version = 2|provider = Alibaba|region = cn-hangzhou",
    "tencent-cos, region: ap-shanghai": "endpoint = https://cos.ap-shanghai.myqcloud.com|force_path_style = false|list_version = 1|provider = TencentCOS|region = ap-shanghai",
    "tencent-cos, region: ap-shanghai, network: internal": "endpoint = https://cos.ap-shanghai.myqcloud.com|force_path_style = false|list_version = 1|provider = TencentCOS|region = ap-shanghai",
    "huawei-obs, region: cn-north-4": "endpoint = https://obs.cn-north-4.myhuaweicloud.com|force_path_style = false|list_version = 1|provider = HuaweiOBS|region = cn-north-4",
    "qiniu, region: cn-east-1": "endpoint = https://s3.cn-east-1.qiniucs.com|force_path_style = true|list_version = 2|provider = Qiniu|region = cn-east-1",
    "volcengine-tos, region: cn-beijing": "endpoint = https://tos-s3-cn-beijing.volces.com|force_path_style = false|list_version = 1|provider = Other|region = cn-beijing",
    "volcengine-tos, region: cn-beijing, network: internal": "endpoint = https://tos-s3-cn-beijing.ivolces.com|force_path_style = false|list_version = 1|provider = Other|region = cn-beijing",
    "ucloud-us3, region: cn-bj": "chunk_size = 8Mi|disable_checksum = true|endpoint = https://s3-cn-bj.ufileos.com|force_path_style = true|list_url_encode = true|list_version = 1|provider = Other|region = cn-bj|upload_cutoff = 16Mi",
    "ucloud-us3, region: cn-bj, network: internal": "chunk_size = 8Mi|disable_checksum = true|endpoint = http://internal.s3-cn-bj.ufileos.com|force_path_style = true|list_url_encode = true|list_version = 1|provider = Other|region = cn-bj|upload_cutoff = 16Mi",
    "compshare, region: cn-wlcb": "chunk_size = 8Mi|disable_checksum = true|endpoint = https://s3-cn-wlcb.s3stor.compshare.cn|force_path_style = true|list_url_encode = true|list_version = 1|provider = Other|region = cn-wlcb|upload_cutoff = 16Mi",
    "aws, region: eu-central-1": "force_path_style = false|list_version = 2|provider = AWS|region = eu-central-1",
    "minio, endpoint: 'http://minio:9000'": "endpoint = http://minio:9000|force_path_style = true|list_version = 2|provider = Minio",
    "r2, endpoint: 'https://id.r2.cloudflarestorage.com'": "endpoint = https://id.r2.cloudflarestorage.com|force_path_style = true|list_version = 2|provider = Cloudflare|region = auto",
    # explicit keys win
    "aliyun-oss, endpoint: 'https://models.example.com'": "endpoint = https://models.example.com|force_path_style = false|list_version = 2|provider = Alibaba",
    "aws, region: cn-north-1, endpoint: 'https://vpce.example.com', force_path_style: true, list_chunk: 500": "endpoint = https://vpce.example.com|force_path_style = true|list_chunk = 500|list_version = 2|provider = AWS|region = cn-north-1",
    "minio, endpoint: 'http://minio:9000', force_path_style: false, provider: Ceph, region: lab": "endpoint = http://minio:9000|force_path_style = false|list_version = 2|provider = Ceph|region = lab",
    "ucloud-us3, region: hk, chunk_size: 8M": "chunk_size = 8M|disable_checksum = true|endpoint = https://s3-hk.ufileos.com|force_path_style = true|list_url_encode = true|list_version = 1|provider = Other|region = hk|upload_cutoff = 16Mi",
}


def loaded(remote: str) -> Loaded:
    text = f"remotes: {{r: {{{remote}}}}}\nmounts: {{m: {{remote: 'r:data', path: /m}}}}\n"
    return parse(text, "x.yaml", PLACES)


def problems(remote: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(remote)
    return [f"{each.path.removeprefix('remotes.r.')}: {each.text}" for each in caught.value.problems]


def warned(remote: str) -> list[tuple[str, str]]:
    return [(each.path.removeprefix("remotes.r."), each.text) for each in loaded(remote).warnings]


@pytest.mark.parametrize("remote", RENDERED)
def test_what_a_preset_comes_to_in_rclone_conf(remote: str) -> None:
    found = loaded(f"preset: {remote}").settings.remotes["r"]
    text = render({"r": {"type": found.type, **{key: str(value) for key, value in found.options.items()}}})
    _, _, section = text.partition("[r]\n")
    assert section.splitlines() == ["type = s3", *RENDERED[remote].split("|")]


def test_each_preset_is_in_the_table() -> None:
    assert {remote.partition(",")[0] for remote in RENDERED} == set(NAMES)


def test_what_is_shown_of_a_preset_can_be_written() -> None:
    for remote in RENDERED:
        found = loaded(f"preset: {remote}")
        shown = effective(found.settings)
        assert shown["remotes"]["r"]["preset"] == remote.partition(",")[0]
        again = parse(yaml.safe_dump(shown), "again.yaml", PLACES)
        assert again.settings == found.settings
        assert [each.text for each in again.warnings if each.path.startswith("remotes")] == [
            each.text for each in found.warnings
        ]


@pytest.mark.parametrize(
    ("remote", "problem"),
    [
        ("preset: aliyun-os, region: cn-beijing", "preset: is no preset, did you mean 'aliyun-oss'?"),
        ("preset: 5", f"preset: is no preset: there is {', '.join(NAMES)}"),
        ("preset: [aws]", f"preset: is no preset: there is {', '.join(NAMES)}"),
        ("preset: aliyun-oss", "region: is missing: write the region of the bucket, such as cn-hangzhou, cn-shanghai"),
        ("preset: aws", "region: is missing: write the region of the bucket, such as us-east-1, eu-central-1"),
        ("preset: aliyun-oss, region: oss-cn-hangzhou", "region: is written without 'oss-': cn-hangzhou"),
        ("preset: qiniu, region: 华东", "region: must be the store's name of the region, such as cn-east-1"),
        ("preset: qiniu, region: {env: REGION}", "region: must be text where there is a preset"),
        ("preset: minio", "endpoint: is missing: write the store's address, such as http://minio.example.com:9000"),
        (
            "preset: r2",
            "endpoint: is missing: write the store's address, such as https://ACCOUNT_ID.r2.cloudflarestorage.com",
        ),
        (
            "preset: qiniu, region: cn-east-1, network: internal",
            "network: mountd knows no internal address of Qiniu Kodo: leave it out, or write the address as endpoint",
        ),
        ("preset: qiniu, region: cn-east-1, network: vpc", "network: must be 'public' or 'internal', not 'vpc'"),
        ("preset: aws, region: us-east-1, type: swift", "type: is s3 with this preset: leave it out"),
        ("type: s3, endpoint: 'http://x', network: internal", "network: belongs to a preset"),
    ],
)
def test_what_is_wrong_with_a_preset(remote: str, problem: str) -> None:
    assert problems(remote) == [problem]


@pytest.mark.parametrize(
    ("remote", "place", "part"),
    [
        (
            "type: s3, provider: Other, endpoint: 'https://oss-cn-hangzhou.aliyuncs.com'",
            "provider",
            "write Alibaba, or preset: aliyun-oss",
        ),
        (
            "type: s3, provider: Alibaba, endpoint: cos.ap-shanghai.myqcloud.com",
            "provider",
            "write TencentCOS, or preset: tencent-cos",
        ),
        (
            "type: s3, provider: Minio, endpoint: 'https://obs.cn-north-4.myhuaweicloud.com'",
            "provider",
            "write HuaweiOBS",
        ),
        ("type: s3, endpoint: 'https://s3.cn-east-1.qiniucs.com'", "provider", "is Other, as it is not written"),
        (
            "type: s3, provider: Ceph, endpoint: 'https://tos-s3-cn-beijing.volces.com', force_path_style: false",
            "provider",
            "write Other",
        ),
        ("type: s3, provider: Other, endpoint: 'https://eos-wuxi-1.cmecloud.cn'", "provider", "write ChinaMobile"),
        ("type: s3, provider: Other, endpoint: 'https://s3.eu-central-1.wasabisys.com'", "provider", "write Wasabi"),
        ("type: s3, provider: AWS, endpoint: 'https://id.r2.cloudflarestorage.com'", "provider", "write Cloudflare"),
        ("preset: aliyun-oss, endpoint: 'https://cos.ap-shanghai.myqcloud.com'", "provider", "write TencentCOS"),
        ("type: s3, provider: aws, region: us-east-1", "provider", "is AWS for rclone"),
        (
            "type: s3, provider: Alibaba, endpoint: 'https://x.example.com', force_path_style: true",
            "force_path_style",
            "has no effect",
        ),
        (
            "type: s3, provider: Other, endpoint: 'https://tos-s3-cn-beijing.volces.com'",
            "force_path_style",
            "must be false",
        ),
        ("type: s3, provider: Other, endpoint: 'https://s3-cn-bj.ufileos.com'", "chunk_size", "must be 8Mi"),
        ("preset: ucloud-us3, region: cn-bj, chunk_size: 64M", "chunk_size", "must be 8Mi"),
        (
            "type: s3, provider: TencentCOS, endpoint: cos.ap-shanghai.myqcloud.com, region: ap-beijing",
            "region",
            "the endpoint's name says ap-shanghai",
        ),
        (
            "preset: aliyun-oss, region: cn-beijing, network: internal, endpoint: 'https://oss.example.com'",
            "network",
            "is ignored",
        ),
    ],
)
def test_what_does_not_fit_together(remote: str, place: str, part: str) -> None:
    found = warned(remote)
    assert [where for where, _ in found] == [place]
    assert part in found[0][1]


@pytest.mark.parametrize(
    "remote",
    [
        "type: s3, provider: Alibaba, endpoint: 'https://oss-cn-hangzhou.aliyuncs.com', region: oss-cn-hangzhou",
        "type: s3, provider: Alibaba, endpoint: 'https://models.example.com'",
        "type: s3, provider: Other, endpoint: 'https://aliyuncs.com.example.com'",
        "type: s3, provider: Other, endpoint: 'https://notaliyuncs.com'",
        "type: s3, provider: US3, endpoint: 'https://s3-cn-bj.ufileos.com', chunk_size: 8M",
        "type: s3, provider: AWS, region: us-east-1",
        "type: s3, provider: AWS, endpoint: 'https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com', region: us-east-1",
        "type: s3, provider: OfTomorrow, endpoint: 'https://x.example.com'",
        "type: s3, provider: {env: PROVIDER}, endpoint: 'https://oss-cn-hangzhou.aliyuncs.com'",
        "type: swift, provider: Other, endpoint: 'https://oss-cn-hangzhou.aliyuncs.com'",
        "preset: ucloud-us3, region: cn-bj, chunk_size: 8192",
    ],
)
def test_what_may_be_right_is_not_warned_of(remote: str) -> None:
    assert warned(remote) == []


def test_the_endpoints_of_presets_are_taken_apart_again() -> None:
    for name, preset in PRESETS.items():
        for region in preset.regions if preset.public else ():
            for network in ("public", "internal") if preset.has_own_internal else ("public",):
                found = address_of(preset.address(region, network))
                assert found is not None
                assert (found.preset, found.region, found.network) == (preset, region, network)
                assert found.internal == preset.address(region, "internal")
                assert preset_of(preset.address(region)) == (name, preset)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://",
        "https://[::1",
        "oss-accelerate.aliyuncs.com",
        "https://s3.amazonaws.com",
        "x.example.com",
        "oss-.aliyuncs.com",
    ],
)
def test_other_endpoints_are_not(endpoint: str) -> None:
    assert address_of(endpoint) is None


def test_a_provider_has_one_style() -> None:
    assert set() == PATH_STYLE & HOST_STYLE
    for preset in PRESETS.values():
        assert preset.provider in (PATH_STYLE if preset.path_style else (*HOST_STYLE, "Other"))


def test_what_a_reload_makes_of_a_preset() -> None:
    from mountd.settings.change import compare

    def change(before: str, after: str) -> Any:
        old, new = loaded(before).settings, loaded(after).settings
        return compare(old, new, {}, {}, root=True)

    internal = change(
        "preset: aliyun-oss, region: cn-beijing", "preset: aliyun-oss, region: cn-beijing, network: internal"
    )
    assert (internal.places, internal.remount) == ((("remotes", "r", "endpoint"),), ("m",))
    written = "type: s3, provider: AWS, region: us-east-1, force_path_style: false, list_version: 2"
    assert not change("preset: aws, region: us-east-1", written), "the same, written out"
