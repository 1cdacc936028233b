"""The demo's configuration file: the same keys as a real one, with the demo's places and ports."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mountd.demo import hub

ACCESS_KEY_ID = "mountd-demo-key"
RESULTS = "index-tts-results"
"""The bucket of what the WebUI makes."""
WEBUI = Path(__file__).with_name("webui.py")


@dataclass(frozen=True, slots=True)
class DemoPaths:
    """Everything of one demo lies below `root`; the ports are on loopback."""

    root: Path
    s3_port: int
    web_port: int
    http_port: int

    @property
    def store(self) -> Path:
        """What the S3 server serves: one directory a bucket."""
        return self.root / "store"

    @property
    def config(self) -> Path:
        return self.root / "mountd.yaml"

    @property
    def secret(self) -> Path:
        return self.root / "secret_key"

    @property
    def tokens(self) -> Path:
        """Of the TCP port: one operator."""
        return self.root / "tokens"

    @property
    def app(self) -> Path:
        return self.root / "index-tts"

    @property
    def outputs(self) -> Path:
        return self.app / "outputs"

    @property
    def socket(self) -> Path:
        return self.root / "run" / "mountd.sock"

    @property
    def mount(self) -> Path:
        return self.root / "mnt"


def render(places: DemoPaths) -> str:
    """The YAML. Paths and the like are written as JSON strings, which YAML reads as they are."""
    q = json.dumps
    python = q(sys.executable)
    return f"""\
# Written by `mountd demo`; it goes when the demo ends.
remotes:
  demo:
    type: s3
    provider: Other
    endpoint: http://127.0.0.1:{places.s3_port}
    access_key_id: {ACCESS_KEY_ID}
    secret_access_key: {{file: {q(str(places.secret))}}}

mounts:
  storage:
    remote: demo:{hub.BUCKET}
    path: {q(str(places.mount))}
    profile: model-hub
    allow_other: false
    cache: {{dir: {q(str(places.root / "cache"))}, max_size: 2G, min_free: 1%}}

models:
  cache_hub:
    mount: storage
    directory: "cache_hub_{{version}}"
    link: {q(str(places.app / "cache_hub"))}
    version: v23
    required: [models/gpt.pth]
    watch: {{for: 3s}}               # as long a new version must run before it stays; 30s by default

apps:
  webui:
    command: [{python}, {q(str(WEBUI))}, --port, "{places.web_port}", --host, 127.0.0.1, --model_dir, ./cache_hub]
    directory: {q(str(places.app))}
    environment: {{HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1"}}
    needs: [cache_hub]
    ready: {{http: "http://127.0.0.1:{places.web_port}/config", timeout: 5m}}
    stop: {{signal: SIGINT, grace: 10s}}

outbox:
  results:                           # what the WebUI makes
    directory: {q(str(places.outputs))}
    remote: demo:{RESULTS}/outputs
    settle: 1s                       # 5s by default
    min_free: 1%

control: {{socket: {q(str(places.socket))}}}
http: {{listen: "127.0.0.1:{places.http_port}", tokens: {{file: {q(str(places.tokens))}}}}}
state: {q(str(places.root / "state"))}
runtime: {q(str(places.root / "run"))}
"""
