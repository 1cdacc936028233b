"""The work on the lists of a version: over files that were saved, in a thread when they are small, else as a program.

As a program (`python -I -S -X utf8 survey_job.py ORDER`) it reads its job from the file ORDER and writes the result to
the file that this names: 100,000 files cost a second and 100 MB, of which nothing stays in the daemon.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

if __name__ == "__main__":  # without `site`, it finds what it belongs to by its own place
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from mountd.errors import Refused
from mountd.model import manifest
from mountd.model.manifest import Manifest
from mountd.model.survey import MOST_PROBLEMS, FileList, Findings, changes, sample, summarize, survey
from mountd.rclone import keys
from mountd.rclone.keys import BucketEntry

MOST_UNUSABLE = 1000
"""Keys that cannot be paths: so many are reported of each kind."""

Job = Mapping[str, Any]


def read_manifest(job: Job) -> dict[str, Any]:
    """The file `data` → `summary` and a `sample` of its files, of which some are `required`; or why it is `broken`.

    Writes the lines `[path, bytes, sha256 or null]` to `parsed`, and the digests, as `cache/digests.py` reads them, to
    `digests`: they are of `directory` in the mount."""
    with open(job["data"], "rb") as file:
        data = file.read()
    try:
        of = manifest.parse(data)
    except Refused as error:
        return {"broken": error.text, "former": manifest.former_digest(data)}
    with open(job["parsed"], "x", encoding="ascii") as parsed:
        parsed.write(json.dumps(of.version) + "\n")
        parsed.writelines(f"{json.dumps([path, size, of.sha256.get(path)])}\n" for path, size in of.files.items())
    with open(job["digests"], "x", encoding="ascii") as digests:
        digests.write(json.dumps({"directory": job["directory"], "files": of.digests}))
    sizes = {**dict.fromkeys(job["required"], 1), **of.files}  # what it does not name may be there all the same
    return {"summary": asdict(summarize(of, data)), "sample": sample(job["required"], of.files, sizes)}


def look(job: Job) -> dict[str, Any]:
    """The files of `version`, as the mount shows them (the file `walk`) or as a `listing` of `directory` names them,
    against the manifest `parsed`, if that is not empty → `findings`, and of a listing what is `unusable`."""
    unusable: dict[str, str] = {}
    if "walk" in job:
        files = dict(_lines(job["walk"]))
    else:
        files, unusable = _listed(job["listing"], len(job["directory"]) + 1)
    of = _parsed(job["parsed"]) if job["parsed"] else None
    found = survey(job["version"], files, job["required"], of, job["broken"])
    return {"findings": as_json(found), "unusable": unusable}


def compare(job: Job) -> dict[str, Any]:
    """The packed lists `before` and `now` → `problems`, and how many `more`."""
    before, now = (_unpacked(job[name]) for name in ("before", "now"))
    problems = changes(before, now)
    return {"problems": problems[:MOST_PROBLEMS], "more": max(0, len(problems) - MOST_PROBLEMS)}


JOBS: dict[str, Callable[[Job], dict[str, Any]]] = {"manifest": read_manifest, "look": look, "compare": compare}


def do(job: Job) -> dict[str, Any]:
    """Blocks. Raises OSError, and ValueError for a listing that is none."""
    return JOBS[job["job"]](job)


def as_json(found: Findings) -> dict[str, Any]:
    document = asdict(found)
    document["files"]["packed"] = base64.b64encode(found.files.packed).decode("ascii")
    return document


def of_json(document: dict[str, Any]) -> Findings:
    files = document["files"]
    packed = base64.b64decode(files["packed"])
    return Findings(
        **{
            **document,
            "files": FileList(**{**files, "packed": packed}),
            "problems": tuple(document["problems"]),
            "sample": tuple(document["sample"]),
        }
    )


def _lines(path: str) -> Iterator[Any]:
    with open(path, encoding="ascii") as file:
        yield from map(json.loads, file)


def _parsed(path: str) -> Manifest:
    lines = _lines(path)
    version = next(lines)
    files, sha256 = {}, {}
    for name, size, digest in lines:
        files[name] = size
        if digest is not None:
            sha256[name] = digest
    return Manifest(version, files, sha256)


def _listed(path: str, above: int) -> tuple[dict[str, int], dict[str, str]]:
    """Of rclone's answer: the files, without the first `above` characters of their paths, and what is no path."""
    with open(path, "rb") as file:
        answer = json.load(file)
    if "error" in answer:
        raise ValueError(str(answer["error"]))
    entries = answer["list"]
    items = [BucketEntry(str(each["Path"]), "", int(each.get("Size", -1)), bool(each.get("IsDir"))) for each in entries]
    unusable = keys.unusable(items)
    files = {item.path[above:]: item.size for item in keys.usable(items, unusable) if not item.is_dir}
    return files, _first(unusable)


def _first(unusable: Mapping[str, str]) -> dict[str, str]:
    """Those that have to be hidden from the mount before all others."""
    found = sorted(unusable.items(), key=lambda each: (each[1] != keys.SHADOWS, each[0]))
    return dict(found[:MOST_UNUSABLE])


def _unpacked(path: str) -> dict[str, int]:
    with open(path, "rb") as file:
        return FileList(file.read(), 0, 0, "", "", has_manifest=False).unpack()


def main() -> None:
    with open(sys.argv[1], encoding="ascii") as file:
        job = json.load(file)
    with open(job["answer"], "x", encoding="ascii") as file:
        file.write(json.dumps(do(job)))


if __name__ == "__main__":
    main()
