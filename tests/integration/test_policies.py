"""The policies of deploy/iam against a store that enforces them: what they allow and refuse, and mountd with them.

moto evaluates them: actions, resources, users and assumed roles. Those of OSS and COS are held to the same table,
translated into AWS's words.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.daemon import Daemon
from tests.support.policies import HUB, OUTPUTS, RESULTS, ROLES, STORES, EnforcingS3, as_aws, policy
from tests.support.wait import until

SOON_S = 60.0
READER, WRITER, PUBLISHER, SENDER = ROLES
ACCOUNT_ROLE = "arn:aws:iam::123456789012:role/tts-hub-reader"


@pytest.fixture(scope="module")
def enforcing(hub_directory: Path) -> Iterator[EnforcingS3]:
    with EnforcingS3() as server:
        server.create_bucket(HUB)
        server.upload(HUB, hub_directory / HUB)
        server.enforce()
        yield server


def put(bucket: str, key: str) -> Callable[[Any], object]:
    return lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=b"x")


def get(bucket: str, key: str) -> Callable[[Any], object]:
    return lambda s3: s3.get_object(Bucket=bucket, Key=key)


def delete(bucket: str, key: str) -> Callable[[Any], object]:
    return lambda s3: s3.delete_object(Bucket=bucket, Key=key)


def in_parts(bucket: str, key: str) -> Callable[[Any], object]:
    def upload_and_abort(s3: Any) -> None:
        begun = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        s3.upload_part(Bucket=bucket, Key=key, UploadId=begun, PartNumber=1, Body=b"x")
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=begun)

    return upload_and_abort


TABLE: dict[str, tuple[Callable[[Any], object], set[str]]] = {
    "list the hub": (lambda s3: s3.list_objects_v2(Bucket=HUB), {READER, PUBLISHER}),
    "list the outputs": (lambda s3: s3.list_objects_v2(Bucket=OUTPUTS), {WRITER}),
    "read a version": (get(HUB, "cache_hub_v23/MANIFEST.json"), {READER, PUBLISHER}),
    "read what is beside the versions": (get(HUB, "audio_samples/prompts_zh.json"), {READER}),
    "write a version": (put(HUB, "cache_hub_v24/config.yaml"), {PUBLISHER}),
    "write a version in parts": (in_parts(HUB, "cache_hub_v24/models/gpt.pth"), {PUBLISHER}),
    "write beside the versions": (put(HUB, "audio_samples/new.wav"), set()),
    "delete of a version": (delete(HUB, "cache_hub_v22/config.yaml"), set()),
    "delete a manifest": (delete(HUB, "cache_hub_v22/MANIFEST.json"), set()),
    "delete its marker": (delete(HUB, "cache_hub_v24/.mountd-publishing-ab12"), {PUBLISHER}),
    "write an output": (put(OUTPUTS, "host/spk_1.wav"), {WRITER}),
    "write an output in parts": (in_parts(OUTPUTS, "host/spk_2.wav"), {WRITER}),
    "read an output": (get(OUTPUTS, "host/known.wav"), {WRITER}),
    "delete an output": (delete(OUTPUTS, "host/spk_1.wav"), {WRITER}),
    "send a result": (put(RESULTS, "outputs/a.wav"), {SENDER}),
    "send a result in parts": (in_parts(RESULTS, "outputs/b.wav"), {SENDER}),
    "compare a result": (lambda s3: s3.head_object(Bucket=RESULTS, Key="outputs/a.wav"), {SENDER}),
    "list the results": (lambda s3: s3.list_objects_v2(Bucket=RESULTS), set()),
    "send something beside the results": (put(RESULTS, "other/a.wav"), set()),
    "delete a result": (delete(RESULTS, "outputs/a.wav"), set()),
    "see which buckets there are": (lambda s3: s3.list_buckets(), set()),
    "make a bucket": (lambda s3: s3.create_bucket(Bucket="another"), set()),
    "remove a bucket": (lambda s3: s3.delete_bucket(Bucket=OUTPUTS), set()),
    "change who may do what": (lambda s3: s3.put_bucket_policy(Bucket=HUB, Policy="{}"), set()),
}


def may(call: Callable[[Any], object], s3: Any) -> bool:
    try:
        call(s3)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "NoSuchKey":
            return True  # it was looked for
        if code in ("AccessDenied", "403"):
            return False
        raise
    return True


@pytest.mark.shown_by("s3")
@pytest.mark.parametrize("store", STORES)
def test_each_role_may_do_its_work_and_nothing_else(enforcing: EnforcingS3, store: str) -> None:
    clients = {role: enforcing.as_role(store, role) for role in ROLES}
    found = {name: {role for role in ROLES if may(call, clients[role])} for name, (call, _) in TABLE.items()}
    assert found == {name: allowed for name, (_, allowed) in TABLE.items()}


@pytest.mark.parametrize("role", ROLES)
def test_the_stores_grant_the_same(role: str) -> None:
    def granted(store: str) -> set[tuple[str, str]]:
        return {
            (action, resource)
            for statement in as_aws(store, policy(store, role))["Statement"]
            for action in statement["Action"]
            for resource in statement["Resource"]
        }

    assert granted("s3") == granted("ram") == granted("cam")
    assert "*" not in {resource for _, resource in granted("s3")}


@pytest.mark.fuse
def test_mountd_takes_a_role_by_web_identity(make_daemon: Callable[..., Daemon], enforcing: EnforcingS3) -> None:
    """As in a pod whose account has a role: variables and a token, and no key anywhere."""
    daemon = make_daemon(endpoint=enforcing.endpoint, access_key_id="", secret_access_key="")
    token = daemon.root / "token"
    token.write_text("a.signed.token")
    for key in ("access_key_id", "secret_access_key"):
        del daemon.config["remotes"]["store"][key]
    daemon.config["remotes"]["store"] |= {"provider": "AWS", "region": "us-east-1", "env_auth": "true"}
    daemon.config["remotes"]["store"]["force_path_style"] = "true"
    daemon.environment = {
        "AWS_ROLE_ARN": ACCOUNT_ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL_STS": enforcing.endpoint,
        "AWS_REGION": "us-east-1",
    }
    daemon.start_ready()
    assert daemon.status()["models"]["cache_hub"]["current"] == "v23"


@pytest.mark.fuse
@pytest.mark.thorough
def test_an_outputs_mount_needs_no_more_than_an_outputs_writer(
    make_daemon: Callable[..., Daemon], enforcing: EnforcingS3
) -> None:
    key, secret = enforcing.keys["s3", WRITER]
    daemon = make_daemon(endpoint=enforcing.endpoint, access_key_id=key, secret_access_key=secret)
    mount = daemon.config["mounts"]["storage"] | {"remote": f"store:{OUTPUTS}", "profile": "outputs", "drain": "30s"}
    daemon.config |= {"mounts": {"outputs": mount}, "models": {}, "apps": {}}
    daemon.start_ready()
    work = "d=$1/box && mkdir $d && echo sound >$d/a && mv $d/a $d/b && echo more >>$d/b && echo gone >$d/c && rm $d/c"
    subprocess.run(["sh", "-c", work, "sh", str(daemon.mount)], timeout=SOON_S, check=True)
    s3 = enforcing.as_role("s3", WRITER)

    def stored() -> bool:
        names = [each["Key"] for each in s3.list_objects_v2(Bucket=OUTPUTS, Prefix="box/").get("Contents", [])]
        return names == ["box/b"] and s3.get_object(Bucket=OUTPUTS, Key="box/b")["Body"].read() == b"sound\nmore\n"

    until(stored, SOON_S, "the output in the bucket")
    assert daemon.stop() == 0
    assert "AccessDenied" not in daemon.log_text()


@pytest.mark.fuse
def test_an_outbox_needs_no_more_than_a_results_writer(
    make_daemon: Callable[..., Daemon], enforcing: EnforcingS3
) -> None:
    reader, sender = enforcing.keys["s3", READER], enforcing.keys["s3", SENDER]
    daemon = make_daemon(endpoint=enforcing.endpoint, access_key_id=reader[0], secret_access_key=reader[1])
    secret = daemon.root / "results-secret"
    secret.write_text(sender[1])
    secret.chmod(0o600)
    keys = {"access_key_id": sender[0], "secret_access_key": {"file": str(secret)}}
    keys["upload_cutoff"] = "5M"  # more goes in parts
    daemon.config["remotes"]["results"] = daemon.config["remotes"]["store"] | keys
    directory = daemon.root / "outputs"
    directory.mkdir()
    outbox = {"directory": str(directory), "remote": f"results:{RESULTS}/outputs", "settle": "300ms", "keep": "0s"}
    daemon.config |= {"models": {}, "apps": {}, "outbox": {"results": outbox | {"min_free": "0"}}}
    files = {"a.wav": b"sound", "large.wav": bytes(12_000_000)}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    daemon.start_ready()
    until(lambda: daemon.status()["outbox"]["results"]["uploaded"] == len(files), 120.0, "the uploads")
    s3 = enforcing.as_role("s3", SENDER)
    for name, data in files.items():
        found = s3.get_object(Bucket=RESULTS, Key=f"outputs/{name}")
        assert found["Body"].read() == data
        assert found["Metadata"]["sha256"] == hashlib.sha256(data).hexdigest()
    until(lambda: not [*directory.iterdir()], SOON_S, "the local files to go")
    assert "AccessDenied" not in daemon.log_text()
