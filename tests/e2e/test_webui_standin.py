"""The stand-in WebUI as a supervisor sees the real one: load order, exit codes, port, answers, signals."""

from __future__ import annotations

import errno
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mountd.demo import hub, webui
from mountd.model import manifest
from tests.support import dies_with_us, hold_port
from tests.support.bad_versions import build_bad
from tests.support.wait import until

pytestmark = pytest.mark.thorough

SCRIPT = Path(webui.__file__)
ORDER = [
    "config.yaml",
    "tokenizer/tokenizer.json",
    "models/qwen0.6bemo4-merge/model.safetensors",
    "models/gpt.pth",
    "models/hf_cache/w2v-bert-2.0/model.safetensors",
    "models/hf_cache/semantic_codec_model.safetensors",
    "models/s2mel.pth",
    "models/hf_cache/campplus_cn_common.bin",
    "models/hf_cache/bigvgan/bigvgan_generator.pt",
    "tokenizer/bpe.model",
]


@dataclass(frozen=True)
class WebUI:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def port(self) -> int:
        """Waits until it says that it serves."""

        def named() -> re.Match[str] | None:
            if self.process.poll() is not None:
                pytest.fail(f"exited with {self.process.returncode}:\n{self.text}")
            return re.search(r"Running on local URL:  http://127\.0\.0\.1:(\d+)\n", self.text)

        found = until(named, 60, "the web UI to serve")
        assert found is not None
        return int(found[1])

    def exit_code(self) -> int:
        return self.process.wait(60)


Start = Callable[..., WebUI]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    hub.build(root, scale=1 / 5_000)
    build_bad(root)
    return {version: root / hub.BUCKET / f"cache_hub_{version}" for version in (*hub.VERSIONS, "bad", "bare", "odd")}


def digest(version: Path) -> str:
    return manifest.digest(manifest.parse((version / manifest.NAME).read_bytes()))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def run(model_dir: Path, *flags: str, port: int = 0, offline: bool = True) -> WebUI:
        log = tmp_path / f"log{len(running)}"
        # It needs nothing but Python: neither mountd nor anything installed can be imported.
        argv = [sys.executable, "-I", "-S", str(SCRIPT), "--port", str(port), "--host", "127.0.0.1"]
        argv += ["--model_dir", str(model_dir)]
        env = os.environ | {"HF_HUB_OFFLINE": "1" if offline else "0"}
        with log.open("wb") as out:
            process = subprocess.Popen(dies_with_us([*argv, *flags]), env=env, stdout=out, stderr=out, cwd=tmp_path)
        running.append(process)
        return WebUI(process, log)

    yield run
    for process in running:
        process.kill()
        process.wait()


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def speak(port: int, text: str) -> tuple[int, dict[str, str], bytes]:
    return ask(port, "POST", "/tts", json.dumps({"text": text}).encode())


def test_it_loads_in_upstreams_order_and_never_opens_the_unused_file(start: Start, versions: dict[str, Path]) -> None:
    ui = start(versions["v23"], "--fp16", "--deepspeed", "--cuda_kernel", "--verbose")
    ui.port()
    size = (versions["v23"] / "models/gpt.pth").stat().st_size
    model = f">> model v23 {digest(versions['v23'])[:12]} in {versions['v23']}"
    assert ui.text.splitlines()[:2] == [f">> models/gpt.pth: {size} bytes", model]
    assert re.findall(r">> loaded (\S+) \((\d+) bytes", ui.text) == [
        (name, str((versions["v23"] / name).stat().st_size)) for name in ORDER
    ]
    assert set(hub.FULL_BYTES) - set(ORDER) == {hub.UNUSED}


def test_it_says_which_model_it_holds(start: Start, versions: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "cache_hub"
    link.symlink_to(versions["v22"])
    port = start(link).port()
    status, headers, body = ask(port, "GET", "/config")
    assert (status, headers["content-type"]) == (200, "application/json")
    config = json.loads(body)
    assert (config["version"], config["digest"]) == ("v22", digest(versions["v22"]))
    assert isinstance(config["app_id"], int)

    other = json.loads(ask(start(versions["bare"]).port(), "GET", "/config")[2])
    assert (other["version"], other["digest"]) == ("cache_hub_bare", "")
    assert other["app_id"] != config["app_id"]


def test_the_page_needs_nothing_from_elsewhere(start: Start, versions: dict[str, Path]) -> None:
    port = start(versions["v23"]).port()
    status, headers, body = ask(port, "GET", "/")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<textarea" in page
    assert '"audio"' in page
    assert "语音" in page
    assert not re.search(r"https?://|(src|href)=\"(?!data:)", page)


def test_healthz_is_404_as_with_gradio(start: Start, versions: dict[str, Path]) -> None:
    assert ask(start(versions["v23"]).port(), "GET", "/healthz")[0] == 404


def test_speech_is_short_and_depends_on_text_and_model(start: Start, versions: dict[str, Path]) -> None:
    old, new = start(versions["v22"]).port(), start(versions["v23"]).port()
    status, headers, sound = speak(new, "你好 hello, " * 20)
    assert (status, headers["content-type"]) == (200, "audio/wav")
    assert (headers["x-model-version"], headers["x-model-digest"]) == ("v23", digest(versions["v23"]))
    with wave.open(io.BytesIO(sound)) as file:
        assert 0.3 < file.getnframes() / file.getframerate() <= 3.0
        frames = file.readframes(file.getnframes())
    assert max(frames[1::2]) > 0  # not silence
    assert speak(new, "你好 hello, " * 20)[2] == sound
    assert speak(old, "你好 hello, " * 20)[2] != sound
    assert speak(new, "another text")[2] != sound
    assert speak(new, "…!?")[0] == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", None, 400),
        (b"no json", None, 400),
        (b"[1]", None, 400),
        (b'{"text": 5}', None, 400),
        (b'{"text": "  "}', None, 422),
        (json.dumps({"text": "x" * 301}).encode(), None, 422),
        (b"x" * 16_385, None, 413),
        (b"", {"Content-Length": "99999999999999"}, 413),
        (b"", {"Content-Length": "-1"}, 411),
    ],
)
def test_bad_requests_are_refused(
    start: Start,
    versions: dict[str, Path],
    body: bytes,
    headers: dict[str, str] | None,
    status: int,
) -> None:
    port = start(versions["v23"]).port()
    assert ask(port, "POST", "/tts", body, headers)[0] == status
    assert speak(port, "still there")[0] == 200


@pytest.mark.parametrize("flags", [["--listen"], ["--no-such-flag"], ["--port", "x"]])
def test_a_wrong_command_line_exits_2(start: Start, versions: dict[str, Path], flags: list[str]) -> None:
    assert start(versions["v23"], *flags).exit_code() == 2


@pytest.mark.parametrize("version", ["bad", "nowhere"])
def test_offline_a_missing_file_exits_1(start: Start, versions: dict[str, Path], version: str) -> None:
    directory = versions["v23"].parent / f"cache_hub_{version}"
    ui = start(directory)
    assert ui.exit_code() == 1
    assert "HF_HUB_OFFLINE" in ui.text
    assert (version == "nowhere") != directory.exists()


def test_online_missing_files_are_downloaded_into_the_model_directory(start: Start, tmp_path: Path) -> None:
    """The danger of a bare mount point: everything ends up on the local disk."""
    bare = tmp_path / "mountpoint"
    bare.mkdir()
    start(bare, offline=False).port()
    assert sorted(path.relative_to(bare).as_posix() for path in bare.rglob("*") if path.is_file()) == sorted(ORDER)


def test_a_damaged_file_exits_1(start: Start, tmp_path: Path) -> None:
    hub.build(tmp_path, versions=["v1"], scale=1 / 50_000)
    directory = tmp_path / hub.BUCKET / "cache_hub_v1"
    for name in ("models/s2mel.pth", "models/qwen0.6bemo4-merge/model.safetensors"):
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(whole[:-200])
        ui = start(directory)
        assert ui.exit_code() == 1
        assert str(directory / name) in ui.text
        (directory / name).write_bytes(whole)


def test_the_port_is_closed_while_it_loads(start: Start, versions: dict[str, Path]) -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
        ui = start(versions["v23"], "--load-seconds", "600", port=port)
        until(lambda: ">> models/gpt.pth" in ui.text, 60, "loading to begin")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_taken_port_exits_1(start: Start, versions: dict[str, Path]) -> None:
    port = start(versions["v23"]).port()
    second = start(versions["v23"], port=port)
    assert second.exit_code() == 1
    assert os.strerror(errno.EADDRINUSE) in second.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
@pytest.mark.parametrize("when", ["serving", "loading"])
def test_signals_end_it(start: Start, versions: dict[str, Path], number: signal.Signals, code: int, when: str) -> None:
    if when == "serving":
        ui = start(versions["v23"])
        # A connection that stays open must not hold up the end.
        idle = socket.create_connection(("127.0.0.1", ui.port()), timeout=5)
    else:
        ui = start(versions["v23"], "--load-seconds", "600")
        until(lambda: ">> models/gpt.pth" in ui.text, 60, "loading to begin")
        idle = socket.socket()
    with idle:
        ui.process.send_signal(number)
        assert ui.process.wait(60) == code
