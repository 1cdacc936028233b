"""Answers → the text of a first mountd.yaml, with a comment beside what a reader may want to change; secrets stand in
it by reference only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mountd.i18n import M_
from mountd.settings.presets import PRESETS, Network, PresetName

AppName = Literal["index-tts", "index-tts-v23", "glm-tts", "other", "none"]
SecretKind = Literal["file", "env", "credential"]
REMOTE, MOUNT, APP = "store", "storage", "webui"
KEYS = ("access_key_id", "secret_access_key")
KEY_FILES = ("access_key_id", "secret_key")
VARIABLES = ("MOUNTD_ACCESS_KEY_ID", "MOUNTD_SECRET_ACCESS_KEY")
_PLAIN = re.compile(r"[A-Za-z0-9/.][A-Za-z0-9_./:+-]*(?<!:)")
_OTHER_KIND = re.compile(r"[0-9.+:-]+|true|false|yes|no|on|off|null", re.IGNORECASE)
"""What YAML would take for a number, a time or a truth value."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[^/\x00-\x1f]+)*/?")


@dataclass(frozen=True, slots=True)
class AppTemplate:
    """What is known of an app: how it is started, where it looks for its model, and when it is ready."""

    title: str
    command: tuple[str, ...]
    directory: str
    model: str
    required: tuple[str, ...] = ()
    cache: str = "30G"
    level: str = "metadata"
    """What of a version is brought here ahead."""
    starts_early: bool = False
    """Whether the app may be started while the data are on their way."""
    watch: str = "30s"
    ready: tuple[str, ...] = ()
    """Lines below `ready:`; VOICE stands for the path of a reference voice."""
    notes: tuple[str, ...] = ()

    @property
    def pattern(self) -> str:
        return f"{self.model}_{{version}}"


_GRADIO = ('http: "http://127.0.0.1:7860/config"   # the port opens when everything is loaded', "timeout: 15m")
_INDEX_TTS = ("config.yaml", "models/gpt.pth", "models/s2mel.pth")
_VOICE = "examples/prompt/jiayan_zh.wav"
_SPEAK = """\
command:
  - python3
  - -c
  - |
    from gradio_client import Client, handle_file
    voice = handle_file(VOICE)
    text = "他当时还跟线下其他的站姐吵架，然后，打架进局子了。"
    Client("http://127.0.0.1:8048").predict(text, voice, "你好。", 42, 24000, True, api_name="/run_inference")
timeout: 20m"""

APPS: dict[AppName, AppTemplate] = {
    "index-tts": AppTemplate(
        "IndexTTS2 as published",
        ("python3", "webui.py", "--port", "7860", "--host", "0.0.0.0", "--model_dir", "./cache_hub"),  # noqa: S104
        "/srv/index-tts",
        "cache_hub",
        _INDEX_TTS,
        level="data",
        starts_early=True,
        ready=_GRADIO,
        notes=("With an environment of its own, as `uv sync` makes it: .venv/bin/python in place of python3.",),
    ),
    "index-tts-v23": AppTemplate(
        "IndexTTS2 in a redistributed “V23” image, whose parser differs",
        ("python3", "webui.py", "--listen", "--port", "7860"),
        "/srv/index-tts",
        "cache_hub",
        _INDEX_TTS,
        level="data",
        starts_early=True,
        ready=_GRADIO,
    ),
    "glm-tts": AppTemplate(
        "GLM-TTS",
        ("python3", "-m", "tools.gradio_app"),
        "/srv/GLM-TTS",
        "ckpt",
        ("llm/config.json", "flow/flow.pt", "flow/config.yaml"),
        cache="40G",
        watch="1m",
        ready=tuple(_SPEAK.splitlines()),
        notes=(
            "It loads its models at the first synthesis: a page that opens proves nothing. So it is ready when it has",
            "spoken once.  首次合成时才加载模型，所以成功合成一次才算就绪",
        ),
    ),
    "other": AppTemplate("another program", (), "/srv/app", "model"),
    "none": AppTemplate("none: mountd only keeps the model there", (), "/srv/models", "model"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """The answers; `key_directory` is where the files of the keys are."""

    store: PresetName
    bucket: str
    app: AppName
    directory: str
    """pattern of the versions in the bucket"""
    version: str
    app_directory: str
    mount_point: str
    region: str = ""
    network: Network = "public"
    endpoint: str = ""
    secrets: SecretKind = "file"
    key_directory: str = "/etc/mountd"
    command: Sequence[str] = field(default_factory=tuple)
    user: str = ""
    results: str = ""
    """directory whose files are uploaded; empty: none"""
    results_to: str = ""
    """BUCKET or BUCKET/DIRECTORY for them"""

    @property
    def template(self) -> AppTemplate:
        return APPS[self.app]

    @property
    def link(self) -> str:
        """Where the app looks for its model."""
        return f"{self.app_directory.rstrip('/')}/{self.template.model}"

    def references(self) -> tuple[str, str]:
        """How the two parts of the key are referred to, in the order of KEYS."""
        if self.secrets == "env":
            first, second = (f"{{env: {name}}}" for name in VARIABLES)
        elif self.secrets == "credential":
            first, second = (f"{{credential: {name}}}" for name in KEY_FILES)
        else:
            first, second = (f"{{file: {quoted(f'{self.key_directory}/{name}')}}}" for name in KEY_FILES)
        return first, second


def wrong_bucket(bucket: str) -> str:
    """What is wrong with BUCKET or BUCKET/PREFIX, empty when nothing is."""
    return "" if _BUCKET.fullmatch(bucket) else M_("must be BUCKET or BUCKET/DIRECTORY, such as index-tts-data")


def doubts(draft: Draft) -> list[str]:
    """What is probably not meant."""
    models, results = (each.partition("/")[0] for each in (draft.bucket, draft.results_to))
    found = [
        M_("buckets of Tencent COS end in the account's number: {bucket}-1250000000", bucket=bucket)
        for bucket in dict.fromkeys((models, results))
        if draft.store == "tencent-cos" and bucket and not re.search(r"-[0-9]{5,}$", bucket)
    ]
    if models == results:
        text = M_(
            "{bucket} is the bucket of the models: give results another one, which the keys may write to", bucket=models
        )
        found.append(text)
    return [*found]


def quoted(text: str) -> str:
    """As a scalar of YAML, whatever it holds; also for editors, which take 7860 for a number."""
    plain = _PLAIN.fullmatch(text) and not _OTHER_KIND.fullmatch(text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def render(draft: Draft) -> str:
    """The file. What is wrong with the answers shows when it is parsed, at the key that holds them."""
    parts = [_head(draft), _remotes(draft), _mounts(draft), _models(draft)]
    if draft.app != "none":
        parts.append(_apps(draft))
    parts.append(_outbox(draft))
    parts.append(["# http: {listen: 127.0.0.1:8780}      # /healthz, /readyz, /metrics, also for Prometheus elsewhere"])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _noted(line: str, note: str) -> str:
    return f"{line:<37} # {note}"


def _head(draft: Draft) -> list[str]:
    return [
        f"# mountd with models in {PRESETS[draft.store].title}, for {draft.template.title}.",
        "# After an edit: `mountd config check`; a running mountd takes it up by itself.  改后运行 mountd config check",
        "# Durations are written 500ms 2s 5m 1h; sizes 16M 30G, or 5% of the disk.",
    ]


def _remotes(draft: Draft) -> list[str]:
    preset = PRESETS[draft.store]
    first, second = draft.references()
    lines = ["# `mountd config show` shows what the preset stands for.  存储服务", "remotes:", f"  {REMOTE}:"]
    lines.append(_noted(f"    preset: {draft.store}", preset.title))
    if draft.region:
        lines.append(f"    region: {quoted(draft.region)}")
    if draft.endpoint:
        lines.append(f"    endpoint: {quoted(draft.endpoint)}")
    elif preset.has_own_internal:
        inside = "internal: free of charge inside of this cloud's region  同地域内网不收流量费"
        lines.append(_noted(f"    network: {draft.network}", f"public; {inside}"))
    lines.append("    # Keys never stand in this file.  密钥不写在本文件里")
    return [*lines, f"    {KEYS[0]}: {first}", f"    {KEYS[1]}: {second}"]


def _mounts(draft: Draft) -> list[str]:
    return [
        "# The bucket as a directory.  把存储桶挂载成本地目录",
        "mounts:",
        f"  {MOUNT}:",
        f"    remote: {quoted(REMOTE + ':' + draft.bucket.strip('/'))}",
        _noted(f"    path: {quoted(draft.mount_point)}", "an empty directory; created when missing  挂载点"),
        _noted("    profile: model-hub", "read-only, cached on disk; small: for little memory or a slow disk"),
        "    cache:",
        _noted(f"      max_size: {draft.template.cache}", "room for two versions at least  至少容纳两个版本"),
        _noted("      # dir: /data/mountd", "on a fast local disk; default: below /var/cache/mountd  缓存目录"),
    ]


def _models(draft: Draft) -> list[str]:
    template = draft.template
    required = [f"      - {quoted(each)}" for each in template.required]
    if required:
        required.insert(0, _noted("    required:", "a version without these never goes live  缺少则不上线"))
    return [
        "# Which version is live.  当前使用哪个版本的模型",
        "models:",
        f"  {template.model}:",
        f"    mount: {MOUNT}",
        _noted(f"    directory: {json.dumps(draft.directory, ensure_ascii=False)}", "in the bucket, one a version"),
        _noted(f"    link: {quoted(draft.link)}", "what the app opens; points at the live version  软链接"),
        _noted(f"    version: {quoted(draft.version)}", "wanted at first start; later: mountd switch VERSION"),
        *required,
        "    # metadata: the list of files; data: their bytes too; pin: a checked copy on local disk  预热到哪一级",
        f"    warm: {{level: {template.level}}}",
        _noted(f"    watch: {{for: {template.watch}}}", "a crash in this time after a switch undoes it  观察期"),
    ]


def _outbox(draft: Draft) -> list[str]:
    if draft.results:
        return [
            "# What the app writes there is uploaded by itself, and announced by an event.  自动上传生成结果",
            "outbox:",
            "  results:",
            _noted(
                f"    directory: {quoted(draft.results)}", "on local disk; the app makes it  程序写入结果的本地目录"
            ),
            _noted(
                f"    remote: {quoted(REMOTE + ':' + draft.results_to.strip('/'))}",
                "the keys must be allowed to write to it  密钥须有写权限",
            ),
            _noted("    keep: 7d", "how long a file stays here after its upload; 0s; forever  上传后本地保留多久"),
        ]
    directory = f"{draft.app_directory.rstrip('/')}/outputs"
    return [
        "# What the app writes there is uploaded by itself, to a bucket that the keys may write to.  自动上传生成结果",
        "# outbox:",
        f"#   results: {{directory: {quoted(directory)}, remote: {REMOTE}:BUCKET/outputs, keep: 7d}}",
    ]


def _apps(draft: Draft) -> list[str]:
    template, directory = draft.template, draft.app_directory.rstrip("/")
    command = ", ".join(quoted(word) for word in draft.command or template.command)
    early = f"{{model: {template.model}, level: metadata}}" if template.starts_early else template.model
    lines = [
        "# The program that needs the model. It starts only once the model is really there.  模型就绪后才启动",
        "apps:",
        f"  {APP}:",
        *(f"    # {note}" for note in template.notes),
        f"    command: [{command}]",
        f"    directory: {quoted(draft.app_directory)}",
        _noted(f"    {f'user: {quoted(draft.user)}' if draft.user else '# user: tts'}", "the user that it runs as"),
        "    # It never downloads a model behind your back.  禁止联网下载模型",
        '    environment: {HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1"}',
        f"    needs: [{early}]",
    ]
    if template.ready:
        voice = json.dumps(f"{directory}/{_VOICE}", ensure_ascii=False)
        lines += ["    ready:", *(f"      {line.replace('VOICE', voice)}" for line in template.ready)]
    else:
        lines.append('    # ready: {http: "http://127.0.0.1:7860/", timeout: 15m}     # or command: […], which exits 0')
    return [*lines, _noted("    stop: {signal: SIGINT, grace: 30s}", "SIGINT lets Gradio end cleanly")]
