"""Policies of deploy/iam, and moto's S3 with users that have them: it enforces what they say."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from typing import Any

import boto3

from mountd.demo import hub
from tests.support.manifests import DEPLOY
from tests.support.s3 import MotoS3, client

IAM = DEPLOY / "iam"
ROLES = ("hub-reader", "outputs-writer", "publisher", "results-writer")
STORES = ("s3", "ram", "cam")
HUB, OUTPUTS, RESULTS = hub.BUCKET, "index-tts-outputs", "index-tts-results"
AWS_OF = {
    "oss:ListObjects": "s3:ListBucket",
    "name/cos:GetBucket": "s3:ListBucket",
    "name/cos:HeadObject": "s3:GetObject",
    "name/cos:DeleteMultipleObjects": "s3:DeleteObject",
    **dict.fromkeys(
        [
            *("name/cos:InitiateMultipartUpload", "name/cos:UploadPart", "name/cos:CompleteMultipartUpload"),
            *("name/cos:PutObjectCopy", "name/cos:UploadPartCopy"),
        ],
        "s3:PutObject",
    ),
}
"""Where a word of another store is not AWS's own with another prefix."""
# A request that exchanges a token is signed by nobody: the token is its right. moto asks each request for a signature.
ENFORCING = """
import sys
from moto.core.responses import BaseResponse
from moto.server import main
checked = BaseResponse._authenticate_and_authorize_normal_action
def check(self, resource="*"):
    if "Authorization" in self.headers:
        checked(self, resource)
BaseResponse._authenticate_and_authorize_normal_action = check
main(sys.argv[1:])
"""


def policy(store: str, role: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((IAM / store / f"{role}.json").read_text())
    return found


def as_aws(store: str, document: dict[str, Any]) -> dict[str, Any]:
    """The same policy in AWS's words."""
    if store == "s3":
        return document
    statements = document["Statement"] if store == "ram" else document["statement"]
    translated = []
    for each in statements:
        lower = {key.lower(): value for key, value in each.items()}
        actions = sorted({AWS_OF.get(word, "s3:" + word.rpartition(":")[2]) for word in lower["action"]})
        lists = actions == ["s3:ListBucket"]
        resources = [_arn(store, resource, bucket_alone=lists) for resource in lower["resource"]]
        translated.append({"Effect": lower["effect"].capitalize(), "Action": actions, "Resource": resources})
    return {"Version": "2012-10-17", "Statement": translated}


def _arn(store: str, resource: str, *, bucket_alone: bool) -> str:
    if store == "ram":
        found = re.fullmatch(r"acs:oss:\*:\*:([a-z0-9-]+)(/.*)?", resource)
    else:  # the right to list is written for all keys of the bucket
        found = re.fullmatch(r"qcs::cos:[a-z-]+:uid/1250000000:([a-z-]+)-1250000000(/.*)", resource)
    assert found is not None, resource
    key = "" if bucket_alone and found[2] == "/*" else found[2] or ""
    return f"arn:aws:s3:::{found[1]}{key}"


class EnforcingS3(MotoS3):
    """A user for each policy of each store; from `enforce` on each may do what it says, and nobody may do more."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        super().__init__()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", ENFORCING, "-H", self.host, "-p", str(self.port)], {}

    def _answers(self) -> bool:
        return bool(self.keys) or super()._answers()

    def aws(self, service: str) -> Any:
        session = boto3.session.Session(
            aws_access_key_id=self.access_key_id, aws_secret_access_key=self.secret_access_key, region_name="us-east-1"
        )
        return session.client(service, endpoint_url=self.endpoint)

    def enforce(self) -> None:
        self.create_bucket(OUTPUTS)
        self.create_bucket(RESULTS)
        iam = self.aws("iam")
        for store in STORES:
            for role in ROLES:
                name = f"{store}-{role}"
                iam.create_user(UserName=name)
                document = json.dumps(as_aws(store, policy(store, role)))
                iam.put_user_policy(UserName=name, PolicyName=role, PolicyDocument=document)
                key = iam.create_access_key(UserName=name)["AccessKey"]
                self.keys[store, role] = key["AccessKeyId"], key["SecretAccessKey"]
        iam.create_role(RoleName="tts-hub-reader", AssumeRolePolicyDocument=(IAM / "s3/trust-irsa.json").read_text())
        document = json.dumps(policy("s3", "hub-reader"))
        iam.put_role_policy(RoleName="tts-hub-reader", PolicyName="hub-reader", PolicyDocument=document)
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth", data=b"0", headers=headers, method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()

    def as_role(self, store: str, role: str) -> Any:
        """A boto3 client of S3 with the rights of that role."""
        return client(self.endpoint, *self.keys[store, role])
