"""Real texts of rclone 1.75.2, of `operations/list` over rc."""

from __future__ import annotations

import pytest

from mountd.rclone.failures import LONGEST_CAUSE, OF_THE_OBJECT, classify, is_of_keys

NO_ANSWER = (
    "error in ListJSON: operation error S3: ListObjects, exceeded maximum number of attempts, 1, https response error "
    'StatusCode: 0, RequestID: , HostID: , request send failed, Get "{url}": {cause}'
)
API_ERROR = (
    "error in ListJSON: operation error S3: ListObjects, https response error StatusCode: {status}, RequestID: R1, "
    "HostID: 9Gjj+/=, api error {code}: {text}"
)
URL = "http://127.0.0.1:9000/bkt?delimiter=%2F&max-keys=1000&prefix="

NETWORK = [
    ("dial tcp 127.0.0.1:47843: connect: connection refused", "bucket-unreachable"),
    ("dial tcp 127.0.0.1:46331: i/o timeout", "bucket-unreachable"),
    ("dial tcp: lookup nothere.invalid on 10.255.255.53:53: no such host", "bucket-unreachable"),
    ("dial tcp 10.0.0.1:443: connect: no route to host", "bucket-unreachable"),
    ("EOF", "bucket-unreachable"),
    ("read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer", "bucket-unreachable"),
    ("net/http: timeout awaiting response headers", "bucket-slow"),
    ("context deadline exceeded", "bucket-slow"),
    ("read tcp 127.0.0.1:1->127.0.0.1:2: i/o timeout", "bucket-slow"),
    ("x509: certificate signed by unknown authority", "tls-failure"),
    ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "tls-failure"),
    ("http: server gave HTTP response to HTTPS client", "tls-failure"),
]
API = [
    ("ExpiredToken", "The provided token has expired.", 400, "credentials-expired"),
    ("ExpiredTokenException", "The security token included in the request is expired", 403, "credentials-expired"),
    ("InvalidToken", "The provided token is malformed or otherwise invalid.", 403, "access-denied"),
    (
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        403,
        "clock-skew",
    ),
    ("AccessDenied", "Access Denied", 403, "access-denied"),
    ("InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.", 403, "access-denied"),
    (
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing "
        "method.",
        403,
        "access-denied",
    ),
    ("SlowDown", "Please reduce your request rate.", 503, "bucket-slow"),
    ("InternalError", "We encountered an internal error. Please try again.", 500, "bucket-error"),
    ("UnsupportedAlgorithm", "Encountered an unsupported algorithm.", 400, "bucket-error"),
    (
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
        400,
        "bucket-error",
    ),
    ("NoSuchBucket", "The specified bucket does not exist", 404, "bucket-missing"),
    ("MovedPermanently", "Moved Permanently", 301, "bucket-error"),
    ("UserDisable", "UserDisable", 403, "access-denied"),
    ("InvalidObjectState", "The operation is not valid for the object's storage class", 403, "object-archived"),
]
HTML = "XML syntax error on line 1: element <br> closed by </body>"
NO_XML = (
    "error in ListJSON: operation error S3: ListObjects, https response error StatusCode: {status}, RequestID: , "
    "HostID: , {what}: {cause}"
)
DECODE, ERROR = (
    "deserialization failed, failed to decode response body",
    "error while deserializing xml error response ",
)
INVALID = [
    (200, DECODE, HTML, "bucket-invalid"),
    (200, DECODE, "XML syntax error on line 1: unexpected EOF", "bucket-invalid"),
    (200, DECODE, "XML syntax error on line 1: illegal character code U+0000", "bucket-invalid"),
    (200, DECODE, "XML syntax error on line 1: invalid UTF-8", "bucket-invalid"),
    (403, ERROR, HTML, "bucket-invalid"),
    (407, ERROR, HTML, "bucket-invalid"),
    (511, ERROR, HTML, "bucket-invalid"),
    (502, ERROR, HTML, "bucket-error"),
]
OTHERS = [
    ("error in ListJSON: directory not found", "bucket-missing"),
    ("file does not exist", "directory-missing"),
    (
        "error in ListJSON: operation error S3: ListObjects, exceeded maximum number of attempts, 1, https response "
        "error StatusCode: 400, RequestID: , HostID: , deserialization failed, failed to copy error response body, "
        "read tcp 127.0.0.1:60610->127.0.0.1:49271: read: connection reset by peer",
        "tls-failure",
    ),
    (
        "error in ListJSON: operation error S3: ListObjects, https response error StatusCode: 403, RequestID: , "
        "HostID: , api error Forbidden: Forbidden",
        "access-denied",
    ),
    (
        "error in ListJSON: operation error S3: ListObjects, https response error StatusCode: 403, RequestID: , "
        "HostID: , api error OwnWord: not today",
        "access-denied",
    ),
    (
        "error in ListJSON: operation error S3: ListObjects, exceeded maximum number of attempts, 1, https response "
        "error StatusCode: 502, RequestID: , HostID: , api error BadGateway: Bad Gateway",
        "bucket-error",
    ),
    (
        'error in ListJSON: couldn\'t list files: Propfind "http://127.0.0.1:47843/x/": dial tcp 127.0.0.1:47843: '
        "connect: connection refused",
        "bucket-unreachable",
    ),
    ('didn\'t find section in config file ("nonesuch")', "bucket-error"),
    ('didn\'t find backend called "nosuch"', "bucket-error"),
    ('couldn\'t find method "no/such"', "rclone-error"),
    ('no VFS found with name "nope:"', "rclone-error"),
    ('value must be string "recursive"=true', "rclone-error"),
    (
        "operation error S3: ListObjects, get identity: get credentials: failed to refresh cached credentials, process "
        "provider error: error in credential_process: fork/exec /usr/bin/sh: resource temporarily unavailable",
        "no-processes",
    ),
    ("dial tcp 127.0.0.1:9000: socket: too many open files", "no-descriptors"),
    ("open /var/cache/mountd/vfs/store/x: too many open files", "no-descriptors"),
    ("error in credential_process: fork/exec /usr/bin/sh: cannot allocate memory", "no-memory"),
    ("something nobody has seen", "bucket-error"),
    ("", "bucket-error"),
]
CASES = (
    [(NO_ANSWER.format(url=URL, cause=cause), code) for cause, code in NETWORK]
    + [(API_ERROR.format(code=word, text=text, status=status), code) for word, text, status, code in API]
    + [(NO_XML.format(status=status, what=what, cause=cause), code) for status, what, cause, code in INVALID]
    + OTHERS
)


@pytest.mark.parametrize(("error", "code"), CASES)
def test_real_texts(error: str, code: str) -> None:
    failure = classify(error)
    assert failure.code == code
    assert failure.hint
    assert "\n" not in failure.text
    assert "RequestID" not in failure.text
    assert "delimiter" not in failure.text


KINDS = [
    # what rclone or the store says: code, and what the hint has to name
    ("TokenRefreshRequired: x", "credentials-expired", "renew"),
    ("oauth2: invalid_grant", "credentials-expired", "renew"),
    ("token has expired", "credentials-expired", "renew"),
    ("RequestInTheFuture: x", "clock-skew", "timedatectl"),
    ("Client sent an HTTP request to an HTTPS server", "tls-failure", "https://"),
    ("http: server gave HTTP response to HTTPS client", "tls-failure", "http://"),
    ("x509: certificate relies on legacy Common Name field", "tls-failure", "host name"),
    ("failed to load CABundle", "tls-failure", "ca-cert"),
    ("remote error: tls: handshake failure", "tls-failure", "ca-cert"),
    ("XML syntax error on line 1: illegal character code U+0001", "bucket-invalid", "list_url_encode"),
    ("IllegalLocationConstraintException: x", "bucket-error", "region"),
    ("TemporaryRedirect: x", "bucket-error", "region"),
    ("VirtualHostDomainRequired: x", "bucket-error", "force_path_style"),
    ("PathStyleDomainForbidden: x", "bucket-error", "force_path_style"),
    ("AllAccessDisabled: x", "access-denied", "console"),
    ("AccountProblem: x", "access-denied", "console"),
    ("Object in GLACIER, restore first", "object-archived", "restore"),
    ("failed to retrieve credentials", "access-denied", "env_auth"),
    ("no EC2 IMDS role found", "access-denied", "env_auth"),
    ("unexpected response: 401 Unauthorized", "access-denied", "list and read"),
    ("Status Code: 403", "access-denied", "list and read"),
    ("open /data/x: permission denied", "access-denied", "list and read"),
    ("bucket b does not exist", "bucket-missing", "behind the colon"),
    ("object not found", "object-missing", "upload"),
    ("file does not exist", "directory-missing", "mountd versions"),
    ("TooManyRequests: x", "bucket-slow", "limits"),
    ("StatusCode: 429", "bucket-slow", "limits"),
    ("ServiceUnavailable: x", "bucket-slow", "limits"),
    ("StatusCode: 503", "bucket-slow", "limits"),
    ("RequestTimeout: x", "bucket-slow", "limits"),
    ("lookup s3: server misbehaving", "bucket-unreachable", "DNS"),
    ("temporary failure in name resolution", "bucket-unreachable", "DNS"),
    ("connect: network is unreachable", "bucket-unreachable", "port"),
    ("connect: host is down", "bucket-unreachable", "port"),
    ("write: broken pipe", "bucket-unreachable", "port"),
    ("proxyconnect tcp: x", "bucket-unreachable", "port"),
    ("use of closed network connection", "bucket-unreachable", "port"),
    ("http: server closed idle connection", "bucket-unreachable", "port"),
    ("Client.Timeout exceeded", "bucket-slow", "load"),
    ("context canceled", "bucket-slow", "load"),
    ("connect: operation timed out", "bucket-slow", "load"),
    ('didn\'t find section in config file ("gone")', "bucket-error", "config render"),
    ('didn\'t find backend called "nosuch"', "bucket-error", "type:"),
    ("StatusCode: 502", "bucket-error", "logs of the store"),
    ("InternalError: x", "bucket-error", "logs of the store"),
    ("BadGateway: x", "bucket-error", "logs of the store"),
    ("authentication must be set up on the rc server", "rclone-error", "mountd debug"),
    ('Didn\'t find key "fs" in input', "rclone-error", "mountd debug"),
    ("something nobody has seen", "bucket-error", "mountd logs"),
]


@pytest.mark.parametrize(("error", "code", "remedy"), KINDS)
def test_each_kind_has_its_own_remedy(error: str, code: str, remedy: str) -> None:
    """That a remote is unknown to rclone, for one, has the code of what nobody has seen, and not its hint."""
    failure = classify(error)
    assert failure.code == code
    assert remedy in failure.hint


@pytest.mark.parametrize(
    ("code", "own"),
    [("object-archived", True), ("access-denied", True), ("object-missing", True), ("bucket-unreachable", False)],
)
def test_which_failures_are_of_one_object(code: str, own: bool) -> None:
    assert (code in OF_THE_OBJECT) is own


def test_the_sentence_keeps_the_cause_and_nothing_else() -> None:
    refused = "connect: connection refused"
    error = NO_ANSWER.format(url=URL, cause=f"dial tcp 127.0.0.1:9000: {refused}")
    expected = 'the endpoint cannot be reached: Get "http://127.0.0.1:9000/bkt": dial tcp 127.0.0.1:9000: ' + refused
    assert classify(error).text == expected


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ("x509: certificate has expired or is not yet valid: current time 2026-01-01T00:00:00Z is after …", "clock"),
        ("x509: certificate is valid for s3.example.com, not s3", "endpoint"),
        ("x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs", "endpoint"),
        ("x509: certificate signed by unknown authority", "AWS_CA_BUNDLE"),
    ],
)
def test_what_is_wrong_with_a_certificate(cause: str, remedy: str) -> None:
    failure = classify(NO_ANSWER.format(url=URL, cause=f"tls: failed to verify certificate: {cause}"))
    assert failure.code == "tls-failure"
    assert failure.text.endswith(cause)
    assert [word for word in ("clock", "endpoint", "AWS_CA_BUNDLE") if word in failure.hint] == [remedy]


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("InvalidAccessKeyId", ["access_key_id"]),
        ("SignatureDoesNotMatch", ["secret_access_key"]),
        ("AccessDenied", []),
    ],
)
def test_which_of_the_two_keys_is_wrong(word: str, keys: list[str]) -> None:
    failure = classify(API_ERROR.format(code=word, text="…", status=403))
    assert failure.code == "access-denied"
    assert failure.text.endswith(f": {word}: …")
    assert [key for key in ("access_key_id", "secret_access_key") if key in failure.hint] == keys


@pytest.mark.parametrize(
    ("word", "text", "code", "remedy"),
    [
        (
            "SecondLevelDomainForbidden",
            "The bucket you are attempting to access must be addressed using OSS third level domain.",
            "bucket-error",
            "force_path_style",
        ),
        ("UserDisable", "UserDisable", "access-denied", "console"),
        ("InArrearOrInsufficientBalance", "…", "access-denied", "console"),
        ("PermanentRedirect", "…", "bucket-error", "region"),
        (
            "AccessDenied",
            "The bucket you are attempting to access must be addressed using the specified endpoint.",
            "bucket-error",
            "region",
        ),
        ("InvalidObjectState", "…", "object-archived", "restore"),
    ],
)
def test_a_refusal_for_another_reason_does_not_blame_the_keys(word: str, text: str, code: str, remedy: str) -> None:
    failure = classify(API_ERROR.format(code=word, text=text, status=403))
    assert failure.code == code
    assert [each for each in ("force_path_style", "console", "region", "restore") if each in failure.hint] == [remedy]
    assert "access_key" not in failure.hint


@pytest.mark.parametrize(
    ("word", "text", "speaks"),
    [
        ("SignatureDoesNotMatch", "…", True),
        ("InvalidAccessKeyId", "…", True),
        ("AccessDenied", "Forbidden: Invalid signature", True),
        ("AccessDenied", "Access Denied", False),
        ("Forbidden", "Forbidden", False),
        ("ExpiredToken", "…", False),
        ("NoSuchKey", "signature mismatch/a.bin", False),
    ],
)
def test_whether_a_refusal_is_of_the_keys(word: str, text: str, speaks: bool) -> None:
    assert is_of_keys(API_ERROR.format(code=word, text=text, status=403 if word != "NoSuchKey" else 404)) == speaks
    assert not is_of_keys("open /cache/vfs/a.bin: permission denied")


def test_a_missing_bucket_is_said_once() -> None:
    failure = classify("error in ListJSON: directory not found")
    assert failure.code == "bucket-missing"
    assert "directory not found" not in failure.text


def test_no_password_and_no_novel() -> None:
    failure = classify('Propfind "https://me:hunter2@dav.example/x": ' + "EOF " * 500)
    assert "hunter2" not in failure.text
    assert len(failure.text) < LONGEST_CAUSE + 100
