"""The types of single values: paths, names, umask, signals, addresses; each says what would be right."""

from __future__ import annotations

import re
import signal as signals
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from mountd.errors import BadVersionName
from mountd.settings.names import NAME, check_version
from mountd.settings.units import Duration

ANY_NAME = "any name"
"""In the context of a validation: names are taken as they are, because they were judged already."""
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} must be an absolute path")
    if ".." in path.parts:
        raise ValueError(f"{str(path)!r} must not contain '..'")
    if re.search(r"[\x00-\x1f]", str(path)):
        raise ValueError("a path must not contain control characters")
    return Path("/", *path.parts[1:])  # of "//x" too, which pathlib keeps and the kernel does not


def _octal(value: Any) -> int:
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"0?[0-7]{3}", str(value)):
        raise ValueError(f"{value!r} is not a umask: write three octal digits, such as 022")
    return int(value, 8)


def _signal(value: Any) -> signals.Signals:
    if isinstance(value, signals.Signals):
        return value
    name = str(value).upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in STOP_SIGNALS:
        raise ValueError(f"{value!r} cannot stop a program: use one of {', '.join(STOP_SIGNALS)}")
    return signals.Signals[name]


def _name(value: str, info: ValidationInfo) -> str:
    if not NAME.fullmatch(value) and not (info.context or {}).get(ANY_NAME):
        raise ValueError(f"{value!r} is not a name: lower-case letters, digits, '-' and '_', 32 at most")
    return value


def _version(value: str) -> str:
    try:
        return check_version(value)
    except BadVersionName as error:
        raise ValueError(error.text) from None


def _below(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/") or not value.strip("/."):
        raise ValueError(f"{value!r} must be a relative path without '..'")
    if re.search(r"[\x00-\x1f]", value):
        raise ValueError("a path must not contain control characters")
    return str(PurePosixPath(value))  # as it stands in a listing: without "./", "//" and a slash at its end


def _remote(value: str) -> str:
    """REMOTE:PATH without "./", "//" and a slash at its end, which rclone would take for a part of a name."""
    name, _, path = value.partition(":")
    if ".." in path.split("/"):
        raise ValueError("must not contain '..'")  # what stands before the colon may be a secret
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return f"{name}:{'/' if path.startswith('/') else ''}{'/'.join(parts)}"


def _pattern(value: str) -> str:
    if value.count("{version}") != 1 or re.search(r"[{}]", value.replace("{version}", "")):
        raise ValueError("must contain {version} exactly once, and no other braces")
    return _below(value)


def _address(value: str) -> SplitResult | None:
    """Its parts when it names a host, and no port that cannot be; else None."""
    try:
        parts = urlsplit(value)
        fine = parts.hostname and parts.port != 0 and not re.search(r"[\x00-\x20]", value)
    except ValueError:
        return None
    return parts if fine else None


def _http(value: str) -> str:
    parts = _address(value)
    if parts is None or parts.scheme != "http":
        raise ValueError("must be an http:// address, such as http://127.0.0.1:7860/config")
    return value


def _web(value: str) -> str:
    parts = _address(value)
    if parts is not None and parts.username is not None:  # it would be shown in plans and in the history
        raise ValueError("must not hold a user or a password")
    if parts is None or parts.scheme not in ("http", "https"):
        raise ValueError("must be an http:// or https:// address, such as http://127.0.0.1:7860/config")
    return value


def _prometheus(value: str) -> str:
    if set("?#") & set(_web(value)) or urlsplit(value).path.rstrip("/").endswith("/api/v1/query"):
        raise ValueError("must be the address of Prometheus alone, such as http://127.0.0.1:9090")
    return value.rstrip("/")


def is_host_address(value: str) -> bool:
    """Whether it is an http:// or https:// address, or only `host` or `host:port` as rclone takes it too."""
    parts = _address(value if "://" in value else f"//{value}")
    if parts is None or parts.scheme not in ("", "http", "https"):
        return False
    host = parts.hostname or ""  # with a colon it is an IPv6 address, which urlsplit has checked
    return ":" in host or bool(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", host))


def _listen(value: str) -> str:
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError("a port is 0 to 65535")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute), WithJsonSchema({"type": "string", "pattern": "^/"})]
RelativePath = Annotated[str, AfterValidator(_below), WithJsonSchema({"type": "string", "pattern": "^[^/]"})]
RemotePath = Annotated[
    str,
    Field(pattern=r"^[^:]+:.*$", description="what is mounted: REMOTE:BUCKET or REMOTE:BUCKET/DIRECTORY"),
    AfterValidator(_remote),
]
Pattern = Annotated[
    str,
    AfterValidator(_pattern),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([^/{}][^{}]*)?\{version\}[^{}]*$", "examples": ["cache_hub_{version}"]}
    ),
]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
Umask = Annotated[
    int,
    BeforeValidator(_octal),
    PlainSerializer(lambda value: f"{value:03o}", return_type=str, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": "^0?[0-7]{3}$"}, {"type": "integer", "minimum": 0, "maximum": 777}]}
    ),
]
Signal = Annotated[
    signals.Signals,
    BeforeValidator(_signal),
    PlainSerializer(lambda value: value.name, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^(SIG)?({'|'.join(name[3:] for name in STOP_SIGNALS)})$",
            "examples": ["SIGINT"],
        }
    ),
]
HttpAddress = Annotated[str, AfterValidator(_http), WithJsonSchema({"type": "string", "pattern": "^http://"})]
WebAddress = Annotated[str, AfterValidator(_web), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
PrometheusAddress = Annotated[
    str,
    AfterValidator(_prometheus),
    WithJsonSchema({"type": "string", "pattern": "^https?://[^?#]*$", "examples": ["http://127.0.0.1:9090"]}),
]
Listen = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):[0-9]{1,5}$"), AfterValidator(_listen)]
Version = Annotated[str, AfterValidator(_version)]
PositiveDuration = Annotated[Duration, Field(gt=0)]
