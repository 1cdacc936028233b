"""The image of deploy/container/Containerfile: built by buildah on a small Debian, run as container runtimes run it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
BUILD = PROJECT / "build"
CONTAINERFILE = PROJECT / "deploy/container/Containerfile"
IGNORED = PROJECT / ".containerignore"
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "ca-certificates,fuse3,python3,python3-venv"
"""What the Containerfile installs: here the base has it already, so that building needs no package server."""
PLATFORMS = ("manylinux_2_36", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
BASE, BUILT = "localhost/mountd-test-base", "localhost/mountd-test"
STORE = BUILD / "image-store"
"""Of buildah."""
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
BUILD_S = 600.0
KEPT = 2
"""Built images that stay under build/: the present one, and that of the state before."""


def why_not() -> str:
    """Why no image can be built and run here, "" when it can."""
    missing = [name for name in ("buildah", "mmdebstrap", "unshare", "setpriv") if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "only root can run a container without a container engine"
    return f"install {', '.join(missing)} (packages buildah, mmdebstrap, util-linux)" if missing else ""


class CannotBuild(Exception):
    """No image here, such as without a Debian mirror."""


@dataclass(frozen=True, slots=True)
class Image:
    """`root`: its files, which nobody changes; `config`: what runtimes read, as `buildah inspect` shows it."""

    root: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(each.split("=", 1) for each in self.config["config"]["Env"])

    @property
    def user(self) -> int:
        return int(self.config["config"]["User"].partition(":")[0])

    @property
    def argv(self) -> list[str]:
        return [*self.config["config"]["Entrypoint"], *self.config["config"]["Cmd"]]


def built() -> Image:
    """Of this checkout as it is now; built once for each state of what goes into it. Raises CannotBuild."""
    BUILD.mkdir(exist_ok=True)
    with _locked(BUILD / "image.lock"):
        place = BUILD / "images" / _stamp()
        if not (place / "config.json").exists():
            _build(place)
            for old in sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
    return Image(place / "root", json.loads((place / "config.json").read_text()))


def base_tree() -> Path:
    """A small Debian with what the image needs of it, laid out once. Raises CannotBuild."""
    tree = BUILD / "trees" / f"image-base-{SUITE}"
    if not (tree / "etc/debian_version").exists():
        _remove_store()  # which has the former one
        shutil.rmtree(tree, ignore_errors=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        new = tree.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(new))
        new.rename(tree)
    return tree


def _stamp() -> str:
    """Of all that the image is made of."""
    found = hashlib.sha256(f"{SUITE} {PACKAGES}".encode())
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *_sources()],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in sorted(listed.stdout.splitlines()):
        path = PROJECT / name
        if path.is_file():
            found.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _sources() -> list[str]:
    """What .containerignore lets in."""
    lines = IGNORED.read_text().splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


def _build(place: Path) -> None:
    wheels = _wheels()
    tree = base_tree()
    with _store() as buildah:
        policy = ("--signature-policy", str(_policy()))
        if BASE not in buildah("images", "--format", "{{.Name}}").splitlines():
            empty = buildah("from", *policy, "scratch")
            _run("cp", "-a", f"{tree}/.", buildah("mount", empty))  # with owners and setuid, which `copy` loses
            buildah("commit", *policy, "--rm", empty, BASE)
        words = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never", *policy]
        words += ["--volume", f"{wheels}:/wheels:ro", "--build-arg", "PIP_FLAGS=--no-index --find-links /wheels"]
        words += ["--build-arg", f"BASE={BASE}", "--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc"]
        words += ["--build-arg", "WRITABLE=/srv/app /srv/app/outputs", "--tag", BUILT]
        buildah("bud", *words, "--file", str(CONTAINERFILE), str(PROJECT))
        config = json.loads(buildah("inspect", "--type", "image", BUILT))["Docker"]
        container = buildah("from", *policy, "--pull-never", BUILT)
        mounted = buildah("mount", container)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _run("cp", "-a", f"{mounted}/.", f"{place}/root")
        buildah("rm", "--all")
        buildah("rmi", BUILT)
        (place / "config.json").write_text(json.dumps(config))


def _policy() -> Path:
    path = STORE / "policy.json"
    path.write_text(json.dumps(POLICY))
    return path


@contextlib.contextmanager
def _store() -> Iterator[Callable[..., str]]:
    """buildah with a store that keeps the base for the next build, and nothing mounted. One that failed is removed."""
    if (STORE / "used").exists():  # by a run that was killed
        _remove_store()
    STORE.mkdir(exist_ok=True)
    (STORE / "used").touch()
    words = ("--root", f"{STORE}/store", "--runroot", f"{STORE}/run", "--storage-driver", _driver(STORE))
    try:
        yield lambda command, *more: _run("buildah", *words, command, *more)
    except BaseException:
        _remove_store()
        raise
    _unmount_store()
    (STORE / "used").unlink()


def _unmount_store() -> None:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    for point in sorted((point for point in points if point.startswith(f"{STORE}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False)


def _remove_store() -> None:
    _unmount_store()
    shutil.rmtree(STORE, ignore_errors=True)


def _driver(room: Path) -> str:
    """vfs copies all files for each layer, overlay does not; it does not work on top of another one."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(room)], capture_output=True, text=True, check=True).stdout
    return "vfs" if kind.strip() == "overlayfs" else "overlay"


def _wheels() -> Path:
    """What pip needs to build and install mountd with the Python of the base; fetched when what is needed changes."""
    place, needed = BUILD / "wheels", hashlib.sha256((PROJECT / "constraints.txt").read_bytes())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    for keys in (
        project["build-system"],
        project["project"]["dependencies"],
        project["project"]["optional-dependencies"],
    ):
        needed.update(json.dumps(keys).encode())
    if (place / needed.hexdigest()).exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    machine = os.uname().machine
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    words = ["download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--dest", str(place)]
    words += ["--python-version", PYTHON, "--implementation", "cp", *platforms, "-c", str(PROJECT / "constraints.txt")]
    _run(sys.executable, "-m", "pip", *words, f"{PROJECT}[rclone]", "setuptools>=77", cwd=PROJECT)
    (place / needed.hexdigest()).touch()
    return place


def _run(*words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_S, check=False, cwd=cwd)
    if done.returncode != 0:
        raise CannotBuild(f"{' '.join(words[:2])}: {(done.stderr or done.stdout)[-2000:].strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Workers that run at the same time build it once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- running ----------------------------------------------------------------------------------------------------------

DOCKERS_CAPABILITIES = (
    *("chown", "dac_override", "fsetid", "fowner", "mknod", "net_raw", "setgid", "setuid", "setfcap", "setpcap"),
    *("net_bind_service", "sys_chroot", "kill", "audit_write"),
)
"""What Docker lets a container have by default."""
# In a PID and mount namespace of its own: the image's files with a layer above that is thrown away, /proc, /dev, /sys
# and the volumes; then without the rights that Docker takes, in that root, as the user, with the image's environment.
ENTER = """
set -eu
image=$1 root=$2 fuse=$3 read_only=$4 capabilities=$5 user=$6 volumes=$7
shift 7
mount --make-rprivate /
mount -t tmpfs layers "$root"
mkdir "$root/up" "$root/work" "$root/root"
mount -t overlay -o "lowerdir=$image,upperdir=$root/up,workdir=$root/work" overlay "$root/root"
cd "$root/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 dev dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
[ "$fuse" = no ] || mknod -m 666 dev/fuse c 10 229
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm
for volume in $volumes; do
    mkdir -p ".${volume#*:}"
    mount --bind "${volume%%:*}" ".${volume#*:}"
done
[ "$read_only" = no ] || mount -o remount,bind,ro .
exec setpriv --bounding-set "$capabilities" --inh-caps=-all \
    chroot --userspec "$user:$user" --groups= . env -i "$@"
"""


def entering(
    image: Image,
    room: Path,
    *,
    volumes: Sequence[tuple[Path, Path]] = (),
    fuse: bool = True,
    sys_admin: bool = True,
    read_only: bool = False,
    user: int | None = None,
) -> tuple[str, ...]:
    """The words that start what follows them as process 1 of a container. `room`: an empty directory for its layers.

    `volumes`: (place here, place in the container), without spaces. `user`: None for the image's own.
    """
    capabilities = ",".join(["-all", *(f"+{name}" for name in DOCKERS_CAPABILITIES), *["+sys_admin"] * sys_admin])
    bound = " ".join(f"{here}:{there}" for here, there in volumes)
    environment = [f"{name}={value}" for name, value in image.environment.items()]
    return (
        *("unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-c", ENTER, "sh"),
        *(str(image.root), str(room), "yes" if fuse else "no", "yes" if read_only else "no"),
        *(capabilities, str(image.user if user is None else user), bound, *environment),
    )
