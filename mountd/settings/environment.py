"""What a child inherits of mountd's own environment: what is listed here, and what the configuration names for it.

mountd's environment may hold secrets of others, such as those of a container, and what concerns the daemon alone
(systemd's protocol, its credentials). A child that had NOTIFY_SOCKET would talk to systemd in the daemon's name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mountd.settings.secret import is_secret

_PERSON = ("HOME", "USER", "LOGNAME", "SHELL")
_PLACE = ("PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "TMPDIR", "LD_LIBRARY_PATH")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
COMMON = frozenset([*_PERSON, *_PLACE, *_PROXIES, *map(str.upper, _PROXIES), *_CERTIFICATES])
"""Of every program; and LC_*."""

APP = frozenset(
    {
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "LD_PRELOAD", "VIRTUAL_ENV"),
        *("TOKENIZERS_PARALLELISM", "NLTK_DATA", "MPLCONFIGDIR"),
    }
)
APP_PREFIXES = (
    *("CUDA", "NVIDIA_", "CUDNN_", "NCCL_", "CUBLAS_", "ROCR_", "HIP_", "HSA_", "MIOPEN_", "ASCEND_"),  # accelerators
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "NUMBA_"),  # threads and arithmetic
    *("PYTHON", "CONDA_", "TORCH", "PYTORCH_", "TRITON_", "TF_", "XLA_", "ONNX"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "MODELSCOPE_", "GRADIO_"),
)
"""But for names that look like those of secrets, such as HF_TOKEN."""
OWN_DIRECTORIES = ("XDG_",)
"""Of an app that runs as mountd's own user: another one has other directories."""

RCLONE = frozenset({"GODEBUG", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "SSH_AUTH_SOCK", "KRB5_CONFIG", "KRB5CCNAME"})
CLOUDS = {
    "s3": ("AWS_",),
    "azureblob": ("AZURE_", "MSI_", "IDENTITY_"),
    "azurefiles": ("AZURE_", "MSI_", "IDENTITY_"),
    "swift": ("OS_", "ST_"),
    "googlecloudstorage": ("GOOGLE_", "GCE_"),
    "gcs": ("GOOGLE_", "GCE_"),
    "drive": ("GOOGLE_", "GCE_"),
    "oracleobjectstorage": ("OCI_",),
}
"""By the type of a remote: what rclone takes from the environment when that remote has `env_auth`."""


def of_app(given: Mapping[str, str], *, hidden: Collection[str], own_user: bool) -> dict[str, str]:
    """`given` as an app may see it, without `hidden`, which hold secrets of remotes and of other apps."""
    prefixes = (*APP_PREFIXES, *(OWN_DIRECTORIES if own_user else ()))
    return {
        name: value
        for name, value in given.items()
        if name not in hidden
        and (_is_common(name) or name in APP or (name.startswith(prefixes) and not is_secret(name, value)))
    }


def of_rclone(given: Mapping[str, str], clouds: Iterable[str]) -> dict[str, str]:
    """`given` as an rclone may see it; `clouds`: the types of its remotes that take their keys from the environment.

    RCLONE_* are its flags, which the configuration alone sets.
    """
    prefixes = tuple(prefix for cloud in clouds for prefix in CLOUDS.get(cloud, ()))
    return {
        name: value
        for name, value in given.items()
        if _is_common(name) or name in RCLONE or (prefixes and name.startswith(prefixes))
    }


def of_git(given: Mapping[str, str]) -> dict[str, str]:
    """`given` as git may see it; what it reads from a home, and GIT_*, the caller sets."""
    return {name: value for name, value in given.items() if name in COMMON and name not in _PERSON}


def of_notifier(given: Mapping[str, str]) -> dict[str, str]:
    """`given` as the process that writes to people may see it: proxies, certificates, and what Python needs."""
    return {name: value for name, value in given.items() if _is_common(name) and name not in _PERSON}


def _is_common(name: str) -> bool:
    return name in COMMON or name.startswith("LC_")
