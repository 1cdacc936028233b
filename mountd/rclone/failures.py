"""rclone's error when the bucket does not give what was asked → a code, a sentence, and what to check.

The texts were collected from rclone 1.75.2 (tests/unit/test_rclone_failures.py holds them).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_CAUSE = 300
OF_THE_OBJECT = frozenset({"object-archived", "access-denied", "directory-missing", "object-missing"})
"""Why one object cannot be read while the bucket is well."""


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    text: str
    hint: str


# Pattern, code, what happened, what to check. The first that matches counts: an expired token also gives 403.
_KINDS: tuple[tuple[str, str, str, str], ...] = (
    (
        r"fork/exec [^:]*: resource temporarily unavailable|failed to create new OS thread|newosproc",
        "no-processes",
        "rclone can start no process or thread",
        "see how many there are: TasksMax= of the unit, pids.max of the container, ulimit -u of the user",
    ),
    (
        r"(dial|socket|open|pipe2?|fork/exec|accept4?)\b[^\n]*: too many open files",
        "no-descriptors",
        "rclone has no file descriptor left",
        "see which process holds them: ls -l /proc/PID/fd; raise LimitNOFILE= of the unit, or `ulimit -n`",
    ),
    (
        r"(fork/exec|socket|mmap)[^\n]*: cannot allocate memory|runtime: (out of memory|cannot allocate memory)",
        "no-memory",
        "rclone gets no memory",
        "see MemoryMax= of the unit, the limits of the container and `ulimit -v`",
    ),
    (
        r"couldn't find method|no VFS found|value must be string|Didn't find key|authentication must be set up",
        "rclone-error",
        "rclone refused the request",
        "this is a mistake of mountd or of a very new rclone: please report it with `mountd debug`",
    ),
    (
        r"RequestTimeTooSkewed|RequestInTheFuture",
        "clock-skew",
        "the clock of this machine and that of the store differ too much",
        "set the clock: timedatectl set-ntp true",
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|invalid_grant|token (has |is )?expired",
        "credentials-expired",
        "the credentials have expired",
        "renew the keys or the session token that remotes refers to",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "tls-failure",
        "the endpoint does not speak TLS",
        "write http:// instead of https:// in the endpoint, or the port of its TLS listener",
    ),
    (
        r"XML syntax error.*(illegal character code|invalid UTF-8)",
        "bucket-invalid",
        "a key of the bucket has characters that the store's listing cannot hold",
        "add `list_url_encode: true` to the remote, or rename the object",
    ),
    (
        r"HTTP request to an HTTPS server|StatusCode: 400.*deserialization failed",
        "tls-failure",
        "the endpoint did not understand the request, as one that expects TLS does not",
        "write https:// instead of http:// in the endpoint",
    ),
    (
        # No status of 500 and more but 511, which is a login page's own: there the store, or a gateway of it, is ill.
        r"StatusCode: (?:[234]\d\d|511)\b.*(deserialization failed|error while deserializing xml error response)",
        "bucket-invalid",
        "what answers in the store's place is no object store",
        "a login page, a proxy or another service answers there: open the endpoint with curl, and correct it or the way"
        " to it",
    ),
    (
        r"x509: certificate has expired",
        "tls-failure",
        "the endpoint's certificate has expired, or is not valid yet",
        "renew the certificate of the store; if that is in order, set the clock of this machine",
    ),
    (
        r"x509: (certificate is (not )?valid for|cannot validate certificate for|certificate relies on legacy)",
        "tls-failure",
        "the endpoint's certificate is for another host name",
        "write the host name that the certificate is for in the endpoint",
    ),
    (
        r"x509:|\btls:|certificate|remote error: tls|CABundle",
        "tls-failure",
        "the endpoint's certificate is not trusted",
        "add the authority that signed it to the mount, options: {ca-cert: /path/to/ca.pem}, or set AWS_CA_BUNDLE",
    ),
    (
        r"AuthorizationHeaderMalformed|PermanentRedirect|TemporaryRedirect|MovedPermanently|IllegalLocationConstraint"
        r"|the region '[^']*' is wrong|must be addressed using the specified endpoint",
        "bucket-error",
        "the bucket is in another region",
        "correct region and endpoint of the remote",
    ),
    (
        r"SecondLevelDomainForbidden|VirtualHostDomainRequired|PathStyleDomainForbidden"
        r"|must be addressed using OSS third level domain",
        "bucket-error",
        "the store wants the bucket's name in the host name of the request",
        "name the store's own kind as provider of the remote (Alibaba, TencentCOS, …), or set force_path_style: false",
    ),
    (
        r"UserDisable|AccountProblem|AllAccessDisabled|NotSignedUp|InArrear|AccountOverdue|AccountDisabled|InvalidPayer",
        "access-denied",
        "the store has closed the account, which may have unpaid bills",
        "see the account's state in the store's console; the keys themselves may be right",
    ),
    (
        r"InvalidObjectState|Object in \w+, restore first",
        "object-archived",
        "the object is archived",
        "restore it first, or copy it to a class of storage that can be read at once",
    ),
    (
        r"failed to (retrieve|refresh cached) credentials|get credentials|no EC2 IMDS role",
        "access-denied",
        "there are no credentials to ask with",
        "set access_key_id and secret_access_key of the remote, or what env_auth is to find",
    ),
    (
        r"InvalidAccessKeyId",
        "access-denied",
        "the store refused the credentials, it does not know the access key id",
        "correct access_key_id of the remote, and see that the endpoint is the store that the key is of",
    ),
    (
        r"SignatureDoesNotMatch",
        "access-denied",
        "the store refused the credentials, the secret key does not fit the access key id",
        "correct secret_access_key of the remote: what it refers to must hold the key and nothing else",
    ),
    (
        r"AccessDenied|InvalidToken|Forbidden|Unauthorized|Unauthenticated"
        r"|status ?code: 40[13]|\b40[13] (?:Forbidden|Unauthorized)|permission denied",
        "access-denied",
        "the store refused the credentials",
        "check the keys of the remote and that they may list and read the bucket",
    ),
    (
        r"NoSuchBucket|directory not found|bucket.*(not found|does not exist)",
        "bucket-missing",
        "the bucket or directory does not exist",
        "check the bucket's name behind the colon in remote:, and the endpoint; or create the bucket",
    ),
    (
        r"object not found",
        "object-missing",
        "there is no such object",
        "upload it again",
    ),
    (
        r"file does not exist",
        "directory-missing",
        "there is no such directory",
        "check the name; `mountd versions` lists what the bucket holds",
    ),
    (
        r"SlowDown|TooManyRequests|status ?code: 429|ServiceUnavailable|status ?code: 503|RequestTimeout\b",
        "bucket-slow",
        "the store asks for fewer requests",
        "wait, or ask the operator of the store for the limits",
    ),
    (
        r"no such host|server misbehaving|name resolution",
        "bucket-unreachable",
        "the endpoint's name cannot be resolved",
        "check the host in the endpoint, and DNS on this machine",
    ),
    (
        r"connection refused|no route to host|network is unreachable|host is down|dial tcp.*timeout|connection reset"
        r"|: EOF$|unexpected EOF|broken pipe|use of closed network connection|server closed idle|proxyconnect",
        "bucket-unreachable",
        "the endpoint cannot be reached",
        "check the network, the address and port in the endpoint, and that the store runs",
    ),
    (
        r"deadline exceeded|timeout awaiting|i/o timeout|Client\.Timeout|context canceled|operation timed out",
        "bucket-slow",
        "the store accepts connections but does not answer in time",
        "look at the load of the store and of the network to it",
    ),
    (
        r"didn't find section",
        "bucket-error",
        "rclone.conf lacks the remote",
        "restart mountd; `mountd config render` shows the file",
    ),
    (
        r"didn't find backend",
        "bucket-error",
        "this rclone does not know the type of the remote",
        "correct type:, or install a newer rclone",
    ),
    (
        r"status ?code: 5\d\d|InternalError|BadGateway",
        "bucket-error",
        "the store failed on its own side",
        "look at the logs of the store",
    ),
)
_COMPILED = [(re.compile(kind[0], re.IGNORECASE | re.DOTALL), *kind[1:]) for kind in _KINDS]

_NOISE = re.compile(
    r"error in ListJSON: |error listing: |IO error: |vfs reader: failed to write to cache file: "
    r"|operation error \w+: \w+, "
    r"|exceeded maximum number of attempts, \d+, |https response error StatusCode: 0, "
    r"|https response error StatusCode: \d+, RequestID: [^,]*, HostID: [^,]*, api error (?!Unknown)"
    r"|RequestID: [^,]*, HostID: [^,]*, |request send failed, "
)
_OF_KEYS = re.compile(r"SignatureDoesNotMatch|InvalidAccessKeyId|invalid ?signature|signature mismatch", re.IGNORECASE)
_SAYS_NO_MORE = {"directory not found", "file does not exist"}
_USER_IN_URL = re.compile(r"(://)[^/@\s]+@")
_QUERY = re.compile(r"\?[^\s\"]*")


def classify(error: str) -> Failure:
    """`error` as rclone wrote it. Unknown texts are `bucket-error`."""
    cause = _cause(error)
    for pattern, code, what, hint in _COMPILED:
        if pattern.search(error):
            return Failure(code, what if cause in _SAYS_NO_MORE else f"{what}: {cause}", hint)
    return Failure(
        "bucket-error", f"the store did not give what was asked: {cause}", "`mountd logs` shows what rclone logs"
    )


def is_of_keys(error: str) -> bool:
    """Whether the store refuses the key or the signature, not just one object; a local refusal is none."""
    return bool(_OF_KEYS.search(error)) and classify(error).code == "access-denied"


def _cause(error: str) -> str:
    """rclone's words without what repeats in all of them: request ids, queries, the chain of wrappers."""
    text = _QUERY.sub("", _USER_IN_URL.sub(r"\1", _NOISE.sub("", error)))
    text = " ".join(text.split()) or "no reason given"
    return text if len(text) <= LONGEST_CAUSE else text[: LONGEST_CAUSE - 1] + "…"
