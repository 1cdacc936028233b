"""A stand-in for IndexTTS2's `webui.py`: reads the same files in the same order, then serves a page that beeps.

A script of its own that needs only Python: `python webui.py --port 7860 --host 127.0.0.1 --model_dir ./cache_hub`.
What it shares with upstream is what a supervisor sees: the flags and exit codes, no open port before everything is
loaded, files that are missing being downloaded *into the model directory*, `/config` but no `/healthz`, the signals.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import hashlib
import io
import json
import math
import mmap
import os
import random
import signal
import socketserver
import sys
import time
import wave
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

REQUIRED = "models/gpt.pth"
LOAD_ORDER = (
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
)
CHUNK_BYTES = 1024 * 1024
ZIP_TAIL_BYTES = 65_557  # the end record and the longest comment there can be
ZIP_END = b"PK\x05\x06"
TEXT_CHARACTERS = 300
BODY_BYTES = 16 * 1024
SAMPLE_RATE = 22_050
NOTE, NOTES = 3_750, 14  # samples, at most so many: 14 × 0.17 s < 3 s
PENTATONIC = (0, 2, 4, 7, 9, 12, 14, 16)  # semitones over the key; no two of them clash
PAGE = Path(__file__).with_name("webui.html")


class CannotLoad(Exception):
    pass


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A stand-in for IndexTTS2's WebUI.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--verbose", action="store_true", help="log every request")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one and prints it")
    # Upstream's default is 0.0.0.0; a demo should not open a port to the network unasked.
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--model_dir", default="./checkpoints", help="directory of the model")
    for flag in ("--fp16", "--deepspeed", "--cuda_kernel"):
        parser.add_argument(flag, action="store_true", help="accepted as upstream does; changes nothing here")
    parser.add_argument(
        "--load-seconds", type=float, default=0.0, help="make loading this much slower; unknown to upstream"
    )
    return parser.parse_args()


def content_digest(manifest: bytes) -> str:
    """As mountd computes it: sha256 over the sorted lines of path, size and sha256."""
    entries = sorted((each["path"], each["size"], each["sha256"]) for each in json.loads(manifest)["files"])
    lines = "".join(f"{path}\t{size}\t{sha256}\n" for path, size, sha256 in entries)
    return hashlib.sha256(lines.encode()).hexdigest()


class StandInModel:
    """The model directory: what it says it is, and the reading of its files as the real loaders read them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = directory.resolve().name
        self.digest = ""  # stays empty without a manifest
        manifest = directory / "MANIFEST.json"
        if manifest.exists():
            content = manifest.read_bytes()
            self.version = str(json.loads(content)["version"])
            self.digest = content_digest(content)

    def load(self, extra_s: float) -> None:
        missing = [name for name in LOAD_ORDER if not (self.directory / name).exists()]
        for name in missing:
            self._download(name)
        for name in LOAD_ORDER:
            started = time.monotonic()
            size = _read(self.directory / name)
            time.sleep(extra_s / len(LOAD_ORDER))
            say(f">> loaded {name} ({size} bytes in {time.monotonic() - started:.2f} s)")

    def _download(self, name: str) -> None:
        """What makes an incomplete model directory dangerous: upstream fills it, wherever it may be."""
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise CannotLoad(f"cannot load {name}: it is not in {self.directory} and HF_HUB_OFFLINE is set")
        say(f">> {name} is missing, downloading it into {self.directory}")
        target = self.directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Next to nothing, but a file that loads: a safetensors without tensors, an empty ZIP.
        target.write_bytes(b"\2" + bytes(7) + b"{}" if target.suffix == ".safetensors" else ZIP_END + bytes(18))


def _read(path: Path) -> int:
    match path.suffix:
        case ".safetensors":
            return _read_safetensors(path)
        case ".pth" | ".pt" | ".bin":
            return _read_zip(path)
        case _:
            return len(path.read_bytes())


def _read_safetensors(path: Path) -> int:
    """Header first, then the tensors by mmap and not in their order, each page touched."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:start])
        ranges = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
        random.Random(path.name).shuffle(ranges)  # noqa: S311 - an order, not a secret
        for begin, end in ranges:
            if start + end > len(mapped):
                raise CannotLoad(f"cannot load {path}: its header names more bytes than it has")
            for at in range(start + begin, start + end, CHUNK_BYTES):
                zlib.crc32(mapped[at : min(at + CHUNK_BYTES, start + end)])
        return len(mapped)


def _read_zip(path: Path) -> int:
    """`torch.load`: the directory at the tail first, then the entries from front to back."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - ZIP_TAIL_BYTES, 0))
        if ZIP_END not in file.read():
            raise CannotLoad(f"cannot load {path}: no ZIP directory at its end")
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            zlib.crc32(chunk)
        return size


def speak(text: str, digest: str) -> bytes:
    """A WAV of at most 3 s: a note for each of the first letters. The model decides which one, and the key."""
    key = hashlib.sha256(digest.encode()).digest()[0] % 8
    # Each note starts softly, within 10 ms, and dies away.
    fade = [min(n / (0.01 * SAMPLE_RATE), 1.0) * math.exp(-n / (0.06 * SAMPLE_RATE)) for n in range(NOTE)]
    pcm = array.array("h")
    for letter in [letter for letter in text if letter.isalnum()][:NOTES] or ["a"]:
        step = hashlib.sha256(f"{letter}{digest}".encode()).digest()[0] % len(PENTATONIC)
        turn = 2 * math.pi * 196.0 * 2 ** ((key + PENTATONIC[step]) / 12) / SAMPLE_RATE
        pcm.extend(int(20_000 * loudness * math.sin(turn * n)) for n, loudness in enumerate(fade))
    if sys.byteorder == "big":
        pcm.byteswap()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def keep(sound: bytes) -> None:
    """As upstream does: outputs/spk_TIME.wav; here only where there is such a directory."""
    path = Path("outputs", f"spk_{time.time_ns()}.wav")
    with contextlib.suppress(FileNotFoundError):
        path.write_bytes(sound)


class StandInServer(ThreadingHTTPServer):
    request_queue_size = 64

    def server_bind(self) -> None:
        # http.server would ask the DNS for this machine's name here, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # not of a client that went away
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait 40 ms for an ACK
    timeout = 30
    model: ClassVar[StandInModel]
    page: ClassVar[bytes]
    verbose: ClassVar[bool] = False
    app_id: ClassVar[int] = int.from_bytes(os.urandom(8), "big") >> 1  # as Gradio's: another one for each process

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/":
            self._answer(200, "text/html; charset=utf-8", self.page)
        elif self.path.partition("?")[0] == "/config":
            config = {"app_id": self.app_id, "version": self.model.version, "digest": self.model.digest}
            self._answer(200, "application/json", json.dumps(config).encode())
        else:
            self._refuse(404, "Not Found")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return self._refuse(411, "Length Required")
        if int(length) > BODY_BYTES:
            return self._refuse(413, f"a request may have {BODY_BYTES} bytes")
        body = self.rfile.read(int(length))
        if self.path != "/tts":
            return self._refuse(404, "Not Found")
        try:
            text = json.loads(body)["text"].strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._refuse(400, 'expected {"text": "…"}')
        if not 0 < len(text) <= TEXT_CHARACTERS:
            return self._refuse(422, f"a text has 1 to {TEXT_CHARACTERS} characters")
        started = time.monotonic()
        sound = speak(text, self.model.digest or self.model.version)
        say(f">> spoke {len(text)} characters with {self.model.version} in {time.monotonic() - started:.2f} s")
        keep(sound)
        return self._answer(200, "audio/wav", sound)

    def _refuse(self, status: int, text: str) -> None:
        self.close_connection = True  # the body may be unread, and would be taken for the next request
        self._answer(status, "application/json", json.dumps({"detail": text}, ensure_ascii=False).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Model-Version", quote(self.model.version))  # comes from the bucket
        self.send_header("X-Model-Digest", self.model.digest)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        if self.verbose:
            say(f"{self.address_string()} {format % args}")


def say(text: str) -> None:
    print(text, flush=True)


def run(options: argparse.Namespace) -> None:
    directory = Path(options.model_dir)
    with contextlib.suppress(FileNotFoundError):  # then it is among the missing files
        say(f">> {REQUIRED}: {os.stat(directory / REQUIRED).st_size} bytes")
    model = StandInModel(directory)
    say(f">> model {model.version} {model.digest[:12] or '(no manifest)'} in {directory}")
    model.load(options.load_seconds)
    Handler.model, Handler.verbose, Handler.page = model, options.verbose, PAGE.read_bytes()
    try:
        server = StandInServer((options.host, options.port), Handler)
    except OSError as error:
        raise CannotLoad(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
    say(f"* Running on local URL:  http://{options.host}:{server.server_port}")
    with server:
        server.serve_forever(poll_interval=0.1)


def main() -> int:
    options = parse()
    # A background job of a shell starts with SIGINT ignored; upstream's server handles it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(options)
    except KeyboardInterrupt:
        say("Keyboard interruption in main thread... closing server.")
    except (CannotLoad, OSError, ValueError, KeyError) as error:
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
