"""The file that `mountd init` makes: valid for each store and app, whatever the answers are, and without secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mountd.cli import draft as drafts
from mountd.cli.draft import APPS, AppName, Draft, SecretKind, doubts, quoted, render, wrong_bucket
from mountd.settings.load import Places, inspect_text, parse
from mountd.settings.presets import PRESETS, PresetName
from mountd.settings.secret import SecretRef

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
CONFIG = Path(__file__).parents[2] / "config"


def draft(store: PresetName = "aliyun-oss", app: AppName = "index-tts", **answers: Any) -> Draft:
    preset, template = PRESETS[store], APPS[app]
    made = Draft(
        store,
        "hub",
        app,
        template.pattern,
        "v23",
        template.directory,
        "/mnt/hub",
        region=preset.regions[0] if preset.needs_region else "",
        endpoint=preset.example,
        command=template.command or ("./serve", "--port", "7860"),
    )
    return replace(made, **answers)


@pytest.mark.parametrize("store", PRESETS)
@pytest.mark.parametrize("app", APPS)
def test_each_store_and_app_is_a_valid_file_without_warnings(store: PresetName, app: AppName) -> None:
    made = draft(store, app, user="tts")
    found = parse(render(made), "x.yaml", PLACES)
    assert found.warnings == ()
    (remote,), (mount,) = found.settings.remotes.values(), found.settings.mounts.values()
    (model,) = found.settings.models.values()
    expected = PRESETS[store].options(made.region) | ({"endpoint": made.endpoint} if made.endpoint else {})
    assert {"type": remote.type, **remote.options} | expected == {"type": remote.type, **remote.options}
    assert (mount.remote, str(mount.path)) == ("store:hub", "/mnt/hub")
    assert str(model.link) == f"{APPS[app].directory}/{APPS[app].model}"
    assert [each.user for each in found.settings.apps.values()] == ([] if app == "none" else ["tts"])


@pytest.mark.parametrize("store", PRESETS)
@pytest.mark.parametrize("app", APPS)
def test_results_have_an_outbox(store: PresetName, app: AppName) -> None:
    made = draft(store, app, results="/srv/my results", results_to="results-1250000000/of tts/")
    found = parse(render(made), "x.yaml", PLACES)
    assert found.warnings == ()
    (outbox,) = found.settings.outbox.values()
    assert (str(outbox.directory), outbox.remote) == ("/srv/my results", "store:results-1250000000/of tts")


def test_without_results_the_outbox_is_a_comment_that_is_valid_without_its_signs() -> None:
    text = render(draft())
    assert parse(text, "x.yaml", PLACES).settings.outbox == {}
    first, comment, rest = text.partition("# outbox:\n#   results:")
    (outbox,) = parse(
        f"{first}{comment.replace('# ', '').replace('#', '')}{rest}", "x.yaml", PLACES
    ).settings.outbox.values()
    assert str(outbox.directory) == "/srv/index-tts/outputs"


@pytest.mark.parametrize(("app", "file"), [("index-tts", "mountd.yaml"), ("glm-tts", "glm-tts.yaml")])
def test_the_apps_are_those_of_the_files_we_ship(app: AppName, file: str) -> None:
    shipped = parse((CONFIG / file).read_text(), file, PLACES).settings
    made = parse(render(draft(app=app, user="tts")), "x.yaml", PLACES).settings
    assert made.apps == shipped.apps
    (model,), (theirs,) = made.models.values(), shipped.models.values()
    assert (model.directory, model.link, model.required) == (theirs.directory, theirs.link, theirs.required)
    assert (model.warm, model.watch) == (theirs.warm, theirs.watch)


@pytest.mark.parametrize("kind", ["file", "env", "credential"])
def test_keys_are_references(kind: SecretKind) -> None:
    made = parse(render(draft(secrets=kind, key_directory="/etc/my keys, {old}")), "x.yaml", PLACES).settings
    found = [made.remotes["store"].options[key] for key in drafts.KEYS]
    assert all(isinstance(each, SecretRef) for each in found)
    expected: dict[SecretKind, list[dict[str, Any]]] = {
        "file": [{"file": Path("/etc/my keys, {old}", name)} for name in drafts.KEY_FILES],
        "env": [{"env": name} for name in drafts.VARIABLES],
        "credential": [{"credential": name} for name in drafts.KEY_FILES],
    }
    assert found == [SecretRef.model_validate(each) for each in expected[kind]]


TEXTS = st.text(alphabet=st.sampled_from("ab7.~:#'\"-_{}[]()&*!|>%@`, é模/\\$"), min_size=1, max_size=20)


@given(TEXTS)
def test_any_text_is_one_scalar(text: str) -> None:
    assert yaml.safe_load(f"- [{quoted(text)}]") == [[text]]
    assert yaml.safe_load(f"a: {quoted(text)}   # a note") == {"a": text}


@pytest.mark.parametrize("text", ["7860", "1.10", "0.0.0.0", "true", "No", "12:30", "+1", "2026-01-01", ".", "a:", ":"])
def test_what_an_editor_would_take_for_something_else_is_quoted(text: str) -> None:
    assert yaml.safe_load(quoted(text)) == text


@given(TEXTS, TEXTS, TEXTS)
def test_strange_answers_are_kept_as_they_are_or_refused_at_their_key(path: str, version: str, pattern: str) -> None:
    made = draft(app_directory=f"/srv/{path}", mount_point="/mnt/x", version=version, directory=f"{pattern}{{version}}")
    found = inspect_text(render(made), PLACES)
    assert {each.path.rpartition(".")[2] for each in found.problems} <= {"link", "directory", "version"}
    if not found.problems and found.settings:
        assert found.settings.apps["webui"].directory == Path(f"/srv/{path}")
        assert found.settings.models["cache_hub"].version == version


@given(TEXTS)
def test_a_strange_directory_of_results_is_kept_as_it_is_or_refused(path: str) -> None:
    made = draft(results=f"/data/{path}", results_to="results")
    found = inspect_text(render(made), PLACES)
    assert {each.path for each in found.problems} <= {"outbox.results.directory"}
    if not found.problems and found.settings:
        assert found.settings.outbox["results"].directory == Path(f"/data/{path}")


@pytest.mark.parametrize(
    ("bucket", "fine"),
    [
        ("hub", True),
        ("hub-1250000000", True),
        ("hub/models/tts", True),
        ("hub/", True),
        ("hub/模型", True),
        ("", False),
        ("/hub", False),
        ("store:hub", False),
        ("hub//x", False),
        ("a b", False),
        ("hub\n", False),
        ("https://hub.oss-cn-hangzhou.aliyuncs.com", False),
    ],
)
def test_what_may_be_a_bucket(bucket: str, fine: bool) -> None:
    assert (wrong_bucket(bucket) == "") is fine


@pytest.mark.parametrize(
    ("store", "bucket", "results_to", "named"),
    [
        ("tencent-cos", "hub", "", ["hub-1250000000"]),
        ("tencent-cos", "hub-1250000000/models", "", []),
        ("tencent-cos", "hub-1250000000", "results/tts", ["results-1250000000"]),
        ("tencent-cos", "hub", "results", ["hub-1250000000", "results-1250000000"]),
        ("aliyun-oss", "hub", "", []),
        ("aliyun-oss", "hub", "results/hub", []),
        ("aliyun-oss", "hub/models", "hub/results", ["bucket of the models"]),
    ],
)
def test_what_is_doubtful(store: PresetName, bucket: str, results_to: str, named: list[str]) -> None:
    found = doubts(draft(store, bucket=bucket, results="/srv/results" if results_to else "", results_to=results_to))
    assert len(found) == len(named)
    assert all(part in text for part, text in zip(named, found, strict=True))


def test_what_is_run_for_a_voice_is_one_string_of_python() -> None:
    made = parse(render(draft(app="glm-tts", app_directory='/srv/"a\\b"')), "x.yaml", PLACES).settings
    ready = made.apps["webui"].ready
    assert ready is not None
    assert ready.command is not None
    compile(ready.command[-1], "ready", "exec")
    assert repr('/srv/"a\\b"/examples/prompt/jiayan_zh.wav')[1:-1].replace('"', '\\"') in ready.command[-1]
