"""`mountd publish` against a real store: what it sends, checks, repairs and refuses, and what the bucket holds then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.demo import hub
from mountd.model import manifest
from tests.support.daemon import Daemon
from tests.support.publishing import (
    GPT,
    at,
    check_published,
    leftovers,
    look,
    new_version,
    publish,
    scripted,
    start,
    tree,
)
from tests.support.s3 import MotoS3, RcloneS3


@pytest.fixture
def source(tmp_path: Path, hub_directory: Path) -> Path:
    return new_version(tmp_path / "v24", hub_directory)


@pytest.fixture
def machine(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A configuration, state and rclone of their own; no daemon runs."""
    daemon = make_daemon()
    daemon.write_config()
    return daemon


def is_complete(store: RcloneS3, version: str) -> bool:
    content = look(store, version)
    assert content is not None
    return content.complete


@pytest.mark.thorough
def test_publish_again_and_never_otherwise(make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path) -> None:
    machine = make_daemon()
    machine.write_config()
    dry = publish(machine, source, "v24", "--dry-run", "-o", "json")
    assert (dry.code, dry.json["result"], dry.json["digest"]) == (0, "would-publish", ""), dry
    assert not at(store, "v24").exists()

    done = publish(machine, source, "v24", "-o", "json", "--download-check")
    assert done.code == 0, done
    check_published(store, "v24", source)
    document = done.json
    files = tree(source)
    size = sum(map(len, files.values()))
    assert (document["result"], document["checked"]) == ("published", "download")
    assert (document["files"], document["bytes"]) == (len(files), size)
    assert document["sent"] == {"files": len(files), "bytes": size}
    assert document["left_out"] == [manifest.NAME]
    whole = (at(store, "v24") / manifest.NAME).read_bytes()
    assert document["digest"] == manifest.digest(manifest.parse(whole))
    assert leftovers(machine) == []

    again = publish(machine, source, "v24", "-o", "json")
    assert (again.code, again.json["result"]) == (0, "already-published"), again
    assert (at(store, "v24") / manifest.NAME).read_bytes() == whole
    (source / "empty").write_text("not any more")
    other = publish(machine, source, "v24", "--take-over")
    assert (other.code, "empty" in other.err) == (7, True), other
    (source / "empty").write_text("")
    check_published(store, "v24", source)

    # One object is lost: what the manifest promises is sent again, and the version is the same.
    (at(store, "v24") / GPT).unlink()
    repaired = publish(machine, source, "v24", "-o", "json")
    assert (repaired.code, repaired.json["sent"]["files"]) == (0, 1), repaired
    assert (at(store, "v24") / manifest.NAME).read_bytes() == whole
    check_published(store, "v24", source)
    assert leftovers(machine) == []


@pytest.mark.thorough
def test_refusals(machine: Daemon, store: RcloneS3, source: Path, tmp_path: Path) -> None:
    before = tree(store.directory)
    (tmp_path / "no").mkdir()
    for words, code, why in (
        ((str(source), "latest"), 2, "latest"),
        ((str(source), "../v1"), 2, "../v1"),
        ((str(source), "v24", "--model", "other"), 3, "other"),
        ((str(tmp_path / "none"), "v24"), 3, str(tmp_path / "none")),
        ((str(tmp_path / "no"), "v24"), 7, str(tmp_path / "no")),
    ):
        done = publish(machine, Path(words[0]), *words[1:])
        assert (done.code, why in done.err) == (code, True), done
    # A version that was uploaded by hand may be in use: it gets no mark.
    (at(store, "v23") / manifest.NAME).unlink()
    done = publish(machine, source, "v23")
    assert (done.code, "--take-over" in done.err) == (7, True), done
    (at(store, "v23") / "more").write_text("somebody's")
    done = publish(machine, source, "v23", "--take-over")
    assert (done.code, "--take-over" in done.err, "more" in done.err) == (7, False, True), done
    assert is_complete(store, "v23")
    (at(store, "v23") / "more").unlink()
    assert publish(machine, source, "v23", "--take-over").code == 0
    check_published(store, "v23", source)

    machine.config["mounts"]["storage"]["remote"] = "store:no-such-bucket"
    machine.write_config()
    done = publish(machine, source, "v24")
    assert (done.code, "no-such-bucket" in done.err) == (1, True), done
    machine.config["mounts"]["storage"]["remote"] = f"store:{hub.BUCKET}"
    machine.secret.write_text("of somebody else")
    machine.write_config()
    done = publish(machine, source, "v24")
    assert (done.code, "SignatureDoesNotMatch" in done.err) == (1, True), done
    after = tree(store.directory)
    assert {path for path in after if "v24" in path} == set()
    assert {path for path in before if "v22" in path} == {path for path in after if "v22" in path}


@pytest.mark.thorough
def test_a_file_that_changes_meanwhile(machine: Daemon, store: RcloneS3, source: Path) -> None:
    rclone = scripted(machine)
    rclone.behave(before=f"case \"$*\" in *' copy '*) echo changed >'{source}/config.yaml' ;; esac")
    done = publish(machine, source, "v24")
    assert (done.code, "config.yaml" in done.err) == (1, True), done
    assert not is_complete(store, "v24")
    # What was sent under the former name of the content is sent again, and what is gone here goes there.
    (source / "empty").unlink()
    rclone.behave()
    again = publish(machine, source, "v24", "-o", "json")
    assert (again.code, again.json["sent"]["files"], again.json["deleted"]) == (0, 1, ["empty"]), again
    check_published(store, "v24", source)


@pytest.mark.thorough
def test_a_file_that_changes_and_then_is_what_it_was(machine: Daemon, store: RcloneS3, source: Path) -> None:
    """This store reports no hash: what was sent meanwhile, of the same size, must not count as sent."""
    rclone = scripted(machine)
    config, original = source / "config.yaml", (source / "config.yaml").read_bytes()
    rclone.behave(before=f"case \"$*\" in *' copy '*) tr a-z b-za <'{config}' >x; cat x >'{config}' ;; esac")
    assert publish(machine, source, "v24").code == 1
    assert (at(store, "v24") / "config.yaml").read_bytes() != original
    config.write_bytes(original)
    rclone.behave()
    again = publish(machine, source, "v24", "-o", "json")
    assert (again.code, again.json["sent"]["files"]) == (0, 1), again
    check_published(store, "v24", source)


@pytest.mark.thorough
def test_bytes_that_the_store_got_wrong(machine: Daemon, store: RcloneS3, source: Path) -> None:
    """This store reports no hash: reading back finds it, and the next run repairs it."""
    rclone = scripted(machine)
    wrong = at(store, "v24") / "config.yaml"
    rclone.behave(after=f"case \"$*\" in *' copy '*) tr a-z b-za <'{wrong}' >x; cat x >'{wrong}' ;; esac")
    done = publish(machine, source, "v24", "--download-check")
    assert (done.code, "config.yaml" in done.err) == (1, True), done
    assert not wrong.exists(), "it was found, and deleted for the next run"
    assert not is_complete(store, "v24")
    rclone.behave()
    again = publish(machine, source, "v24", "--download-check", "-o", "json")
    assert (again.code, again.json["sent"]["files"]) == (0, 1), again
    check_published(store, "v24", source)


@pytest.mark.thorough
def test_hashes_of_the_store_are_believed(make_daemon: Callable[..., Daemon], source: Path) -> None:
    """An interrupted run's object was replaced by one of the same size: the ETag shows it."""
    with MotoS3() as moto:
        moto.create_bucket(hub.BUCKET)
        machine = make_daemon(endpoint=moto.endpoint)
        rclone = scripted(machine)
        rclone.behave(after='case "$*" in *" copy "*) kill -9 0 ;; esac')
        start(machine, source, "v24").communicate(timeout=60)
        key = "cache_hub_v24/config.yaml"
        moto.put(hub.BUCKET, key, (source / "config.yaml").read_bytes()[::-1])
        rclone.behave()
        done = publish(machine, source, "v24", "-o", "json")
        assert (done.code, done.json["checked"], done.json["sent"]["files"]) == (0, "hash", 1), done
        content = look(moto, "v24")
        assert content is not None
        assert content.verified
        assert (
            moto.client.get_object(Bucket=hub.BUCKET, Key=key)["Body"].read() == (source / "config.yaml").read_bytes()
        )
