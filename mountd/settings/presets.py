"""Presets of stores: name, region and network → the options of rclone that fit the store, and why each.

What rclone sends for each was seen with 1.75.2, see tests/integration/test_presets.py; addresses, styles and sizes of
parts are from the documentation of rclone and of the stores, see docs/stores.md. Style and list version are always
written: what rclone takes for them by itself has changed with its versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from mountd.i18n import M_

PresetName = Literal[
    "aliyun-oss",
    "tencent-cos",
    "huawei-obs",
    "qiniu",
    "volcengine-tos",
    "ucloud-us3",
    "compshare",
    "aws",
    "minio",
    "r2",
]
Network = Literal["public", "internal"]
REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_PARTS_OF_US3 = {
    # Parts of exactly 8 MiB are all it takes, and 1 GB for an upload in one piece; it verifies no MD5.
    "chunk_size": "8Mi",
    "upload_cutoff": "16Mi",
    "disable_checksum": "true",
    # Names with signs that XML cannot hold.
    "list_url_encode": "true",
}


@dataclass(frozen=True, slots=True)
class Preset:
    """`public` and `internal` are addresses with `{region}`; where both are the same, the store's own DNS leads to its
    internal network inside of the region. Without `public` the address has to be written, such as `example`."""

    title: str
    provider: str
    path_style: bool
    list_version: int
    regions: tuple[str, ...] = ()
    """examples; the first one for messages"""
    public: str = ""
    internal: str = ""
    example: str = ""
    default_region: str = ""
    wrong_prefix: str = ""
    """of addresses, which people write as a part of the region"""
    hosts: tuple[str, ...] = ()
    """the ends of host names that are this store's"""
    also: tuple[str, ...] = ()
    """other providers of rclone that fit"""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_region(self) -> bool:
        return bool(self.regions) and not self.default_region

    @property
    def needs_endpoint(self) -> bool:
        return bool(self.example)

    @property
    def has_own_internal(self) -> bool:
        """Whether the internal network has an address of its own, which has to be written."""
        return bool(self.internal) and self.internal != self.public

    def address(self, region: str, network: Network = "public") -> str:
        """Empty where rclone knows it, or where it has to be written."""
        return (self.internal if network == "internal" else self.public).replace("{region}", region)

    def options(self, region: str = "", network: Network = "public") -> dict[str, str]:
        """Of the remote, as a person would write them, but for its keys."""
        address, region = self.address(region, network), region or self.default_region
        return {
            "type": "s3",
            "provider": self.provider,
            **({"endpoint": address} if address else {}),
            **({"region": region} if region else {}),
            "force_path_style": str(self.path_style).lower(),
            "list_version": str(self.list_version),
            **self.more,
        }


PRESETS: dict[PresetName, Preset] = {
    "aliyun-oss": Preset(
        "Alibaba Cloud OSS",
        "Alibaba",
        path_style=False,  # refused: SecondLevelDomainForbidden
        list_version=2,
        regions=("cn-hangzhou", "cn-shanghai", "cn-beijing", "cn-wulanchabu"),
        public="https://oss-{region}.aliyuncs.com",
        internal="https://oss-{region}-internal.aliyuncs.com",
        wrong_prefix="oss-",
        hosts=("aliyuncs.com",),
    ),
    "tencent-cos": Preset(
        "Tencent Cloud COS",
        "TencentCOS",
        path_style=False,  # newer buckets refuse it: PathStyleDomainForbidden
        list_version=1,
        regions=("ap-guangzhou", "ap-shanghai", "ap-beijing"),
        public="https://cos.{region}.myqcloud.com",
        internal="https://cos.{region}.myqcloud.com",
        wrong_prefix="cos.",
        hosts=("myqcloud.com", "tencentcos.cn"),
    ),
    "huawei-obs": Preset(
        "Huawei Cloud OBS",
        "HuaweiOBS",
        path_style=False,
        list_version=1,  # parallel file systems know no other
        regions=("cn-north-4", "cn-east-3", "cn-south-1"),
        public="https://obs.{region}.myhuaweicloud.com",
        internal="https://obs.{region}.myhuaweicloud.com",
        wrong_prefix="obs.",
        hosts=("myhuaweicloud.com",),
    ),
    "qiniu": Preset(
        "Qiniu Kodo",
        "Qiniu",
        path_style=True,
        list_version=2,
        regions=("cn-east-1", "cn-north-1", "cn-south-1"),
        public="https://s3.{region}.qiniucs.com",
        wrong_prefix="s3-",
        hosts=("qiniucs.com",),
    ),
    "volcengine-tos": Preset(
        "Volcengine TOS",
        "Other",  # rclone has no provider for it
        path_style=False,  # its S3 addresses take nothing else
        list_version=1,
        regions=("cn-beijing", "cn-shanghai", "cn-guangzhou"),
        public="https://tos-s3-{region}.volces.com",
        internal="https://tos-s3-{region}.ivolces.com",
        wrong_prefix="tos-",
        hosts=("volces.com", "ivolces.com"),
    ),
    "ucloud-us3": Preset(
        "UCloud US3",
        "Other",  # 1.75 lists a provider US3, and does not find it: "not known"
        path_style=True,  # with TLS in each region; virtual host only in some
        list_version=1,
        regions=("cn-bj", "cn-wlcb", "cn-sh2", "cn-gd", "hk"),
        public="https://s3-{region}.ufileos.com",
        internal="http://internal.s3-{region}.ufileos.com",  # without TLS: it has none there
        wrong_prefix="s3-",
        hosts=("ufileos.com",),
        also=("US3",),
        more=_PARTS_OF_US3,
    ),
    "compshare": Preset(
        "CompShare",
        "Other",
        path_style=True,
        list_version=1,
        regions=("cn-wlcb",),
        public="https://s3-{region}.s3stor.compshare.cn",
        wrong_prefix="s3-",
        hosts=("compshare.cn",),
        also=("US3",),
        more=_PARTS_OF_US3,  # UCloud runs it
    ),
    "aws": Preset(
        "Amazon S3",
        "AWS",
        path_style=False,
        list_version=2,
        regions=("us-east-1", "eu-central-1", "ap-southeast-1"),
        hosts=("amazonaws.com", "amazonaws.com.cn"),
    ),
    "minio": Preset(
        "MinIO",
        "Minio",
        path_style=True,  # virtual host takes a domain that its operator has set up
        list_version=2,
        example="http://minio.example.com:9000",
    ),
    "r2": Preset(
        "Cloudflare R2",
        "Cloudflare",
        path_style=True,
        list_version=2,
        example="https://ACCOUNT_ID.r2.cloudflarestorage.com",
        default_region="auto",
        hosts=("r2.cloudflarestorage.com",),
    ),
}
NAMES: tuple[PresetName, ...] = get_args(PresetName)
NETWORKS: tuple[Network, ...] = get_args(Network)


def wrong_region(preset: Preset, region: str) -> str:
    """What is wrong with it, empty when nothing is. Any name of the right form may be a region: stores get new ones."""
    if not REGION.fullmatch(region):
        example = preset.regions[0] if preset.regions else "us-east-1"
        return M_("must be the store's name of the region, such as {example}", example=example)
    if preset.wrong_prefix and region.startswith(preset.wrong_prefix):
        right = region.removeprefix(preset.wrong_prefix)
        return M_("is written without {prefix!r}: {right}", prefix=preset.wrong_prefix, right=right)
    return ""


def host_of(endpoint: str) -> str:
    """In lower case; empty when there is none."""
    try:
        return (urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def preset_of(endpoint: str) -> tuple[PresetName, Preset] | None:
    """The store that this address is of, by its host name."""
    host = host_of(endpoint)
    for name, preset in PRESETS.items():
        if any(is_within(host, domain) for domain in preset.hosts):
            return name, preset
    return None


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """An endpoint taken apart: the region that its name says, the network that it is of, and the address in the
    internal network, empty where none is known."""

    preset: Preset
    region: str
    network: Network
    internal: str


def address_of(endpoint: str) -> StoreAddress | None:
    """None for an address that is not one of the usual ones of a store that is known here."""
    found, host = preset_of(endpoint), host_of(endpoint)
    if found is None or not found[1].public:
        return None
    preset = found[1]
    networks: tuple[Network, ...] = ("internal", "public") if preset.has_own_internal else ("public",)
    for network in networks:  # the internal one first: a region of that name would fit the public one as well
        pattern = re.escape(host_of(preset.address("region", network))).replace("region", f"({REGION.pattern})")
        match = re.fullmatch(pattern, host)
        if match and not match[1].startswith("accelerate"):  # over the internet from anywhere, at a cost
            return StoreAddress(preset, match[1], network, preset.address(match[1], "internal"))
    return None
