"""The pipelines in deploy/ci: real schemas read them, a real Git takes the commit, and the verdict is mountd's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from ruamel.yaml import YAML

from mountd.errors import RolledBack
from mountd.status.causes import CAUSES
from tests.support import deployment
from tests.support.deployment import commit, git
from tests.support.manifests import DEPLOY, ENVIRONMENTS, build, named, problems, script

CI = DEPLOY / "ci"
NAMESPACES = '[ "$ENVIRONMENT" != prod ] || namespace=index-tts'


@pytest.mark.parametrize(
    ("file", "schema"), [("github-actions.yml", "vendor.github-workflows"), ("gitlab-ci.yml", "vendor.gitlab-ci")]
)
def test_the_schemas_of_the_field_accept_the_pipelines(file: str, schema: str) -> None:
    # Read as these programs read it: `on` is a word in YAML 1.2.
    pipeline = YAML(typ="safe", pure=True).load((CI / file).read_text())
    problems_found = jsonschema.Draft7Validator(get_builtin_schema(schema)).iter_errors(pipeline)
    assert [f"{each.json_path}: {each.message}" for each in problems_found] == []
    broken = pipeline | {"jobs": {"release": {"step": []}}, "publish": {"scripts": []}}
    assert not jsonschema.Draft7Validator(get_builtin_schema(schema)).is_valid(broken)


def test_the_workflow_is_one() -> None:
    template = named(build("ci"), "WorkflowTemplate", "release-model")
    assert problems(template) == []
    spec = template["spec"]
    templates = {each["name"] for each in spec["templates"]}
    steps = [step for each in spec["templates"] for group in each.get("steps", []) for step in group]
    assert [step["template"] for step in steps] == ["publish", "commit", "wait"]
    assert {step["template"] for step in steps} | {spec["entrypoint"]} == templates
    volumes = {each["name"] for each in spec["volumes"]}
    for each in spec["templates"]:
        container = each.get("container", {})
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        assert "{{" not in " ".join(container.get("args", [])) or each["name"] == "wait", "no parameter in a script"
    parameters = {each["name"]: each for each in spec["arguments"]["parameters"]}
    assert parameters["environment"]["enum"] == [*ENVIRONMENTS]


@pytest.mark.parametrize("file", ["github-actions.yml", "gitlab-ci.yml", "argo-workflow.yaml"])
def test_each_pipeline_goes_the_whole_way(file: str) -> None:
    text = (CI / file).read_text()
    places = [
        text.index(word) for word in ("mountd, publish" if "argo" in file else "mountd publish", "commit-version.sh")
    ]
    places.append(text.index("await_version.py", places[-1]))
    assert places == sorted(places)
    assert NAMESPACES in text or "'index-tts-' + workflow.parameters.environment" in text
    for name, namespace in ENVIRONMENTS.items():
        assert namespace == ("index-tts" if name == "prod" else f"index-tts-{name}")


@pytest.mark.parametrize("file", ["github-actions.yml", "gitlab-ci.yml"])
def test_no_input_is_put_into_a_script(file: str) -> None:
    """What somebody types would be run: inputs come as variables."""
    loaded = yaml.load((CI / file).read_text(), yaml.BaseLoader)

    def scripts(part: object) -> list[str]:
        if isinstance(part, dict):
            found = [str(part[key]) for key in ("run", "script") if key in part]
            return found + [text for each in part.values() for text in scripts(each)]
        return [text for each in part for text in scripts(each)] if isinstance(part, list) else []

    assert scripts(loaded)
    assert [text for text in scripts(loaded) if re.search(r"\$\{\{|\$\[\[", text)] == []


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """Two clones of one repository that holds the overlays."""
    origin = deployment.repository(tmp_path)
    return deployment.clone(origin, "ours"), deployment.clone(origin, "other")


def test_a_version_is_committed_beside_others(clones: tuple[Path, Path]) -> None:
    ours, other = clones
    (other / "README").write_text("somebody else's")
    git(other, "add", "--all")
    git(other, "commit", "--quiet", "--message", "theirs")
    git(other, "push", "--quiet")

    done = commit(ours, "dev", "v99")
    assert done.returncode == 0, done.stderr
    git(other, "pull", "--quiet")
    assert (other / "deploy/kubernetes/overlays/dev/version").read_text() == "v99\n"
    assert git(other, "log", "--format=%s") == "index-tts dev: v99\ntheirs\nbegin"

    again = commit(ours, "dev", "v99")
    assert again.returncode == 0
    assert git(other, "rev-list", "--count", "origin/main") == "3", "nothing to commit"
    assert commit(ours, "nowhere", "v23").returncode == 1


def operation(number: int, to: str, code: int | None, kind: str = "switch") -> dict[str, Any]:
    error = None if code is None else {"exit": code, "text": "it was so", "hint": ""}
    return {
        "id": number,
        "kind": kind,
        "to": to,
        "from": "v23",
        "error": error,
        "duration_s": 1.0,
        "operator": "file",
        "source": "file",
    }


def status(
    current: str,
    *,
    running: str = "",
    desired: str = "v23",
    pending: str = "",
    failed: bool = False,
    app: str = "running",
) -> dict[str, Any]:
    model = {"current": current, "stage": "linked", "desired": desired, "pending": pending or None}
    reason = {"code": "switch-failed", "object": "cache_hub", "text": "it is given up", "hint": "switch by hand"}
    return {
        "operations": [{"to": running}] if running else [],
        "models": {"cache_hub": model},
        "apps": {"webui": {"needs": ["cache_hub"], "state": app, "stopped": None}},
        "reasons": [reason] if failed else [],
    }


@pytest.mark.parametrize(
    ("now", "history", "code"),
    [
        (status("v24"), [operation(7, "v24", None)], 0),
        (status("v24", app="starting"), [], None),  # the first version of a new pod, whose app is not there yet
        (status("v23"), [], None),
        (status("v23", running="v24", desired="v24"), [], None),
        (status("v24", running="v24"), [], None),  # it is watched, and may still go back
        # Declared: it is tried for as long as it is pending, and then the status says that it failed.
        (status("v23", desired="v24"), [operation(3, "v24", 5)], None),  # of an earlier attempt; this one is to begin
        (status("v23", desired="v24", pending="v24"), [operation(7, "v24", 5)], None),
        (status("v23", desired="v24", pending="v24", failed=True), [operation(7, "v24", 1)], None),
        (status("v23", desired="v24", failed=True), [operation(7, "v24", RolledBack.exit_code)], 5),
        (status("v23", desired="v24", failed=True), [operation(3, "v24", 7)], 7),  # before the script began
        (status("v23", desired="v24", failed=True), [operation(7, "v24", 1)], 1),
        (status("v23", desired="v24", failed=True), [], 1),
        (status("v23", desired="v25", failed=True), [], None),  # another one failed, and v24 may follow
        # By hand: what ended after the script began counts.
        (status("v23"), [operation(7, "v24", 7)], 7),
        (status("v23"), [operation(3, "v24", 5)], None),
        (status("v23"), [operation(7, "v24", 1)], None),
        (status("v23"), [operation(7, "v24", 7, "warm")], None),
        (status("v23", desired="v25"), [operation(8, "v25", 5), operation(7, "v24", 5)], 5),
    ],
)
def test_the_verdict_on_a_version(now: dict[str, Any], history: list[dict[str, Any]], code: int | None) -> None:
    module = script("ci/await_version.py")
    verdict = module.decide("v24", now, history, after=5)
    assert (verdict and verdict[0]) == code
    if verdict is not None:
        text = module.report("v24", *verdict, module.newest("v24", history))
        assert "v24" in text
        assert verdict[1] in text
        assert bool(verdict[1]) == (code != 0), "why"


def test_what_it_reads_is_what_mountd_writes() -> None:
    """Each key that the script uses is in mountd's documents."""
    frozen = json.loads((Path(__file__).with_name("documents.json")).read_text())
    of_operation = {"id", "kind", "to", "from", "error", "duration_s", "operator", "source", "started"}
    assert frozen["operation that failed"].keys() >= of_operation
    of_status = frozen["status"]
    assert of_status.keys() >= {"operations", "models", "apps", "reasons"}
    assert all(each.keys() >= {"current", "stage", "desired", "pending"} for each in of_status["models"].values())
    assert all(each.keys() >= {"needs", "state", "stopped"} for each in of_status["apps"].values())
    assert all(each.keys() >= {"code", "object", "text", "hint"} for each in of_status["reasons"])
    assert "switch-failed" in CAUSES
