"""What answers to a purchase mean: every row of the table, every shape of body, and everything else is unclear."""

import json
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cloud.refusals import REFUSALS, Said, answer, read_body
from autoscaler.model import Accepted, RefusalClass, Refused, Unclear

BUSY, LATER, POLICY, ACCOUNT, GONE = (
    RefusalClass.BUSY,
    RefusalClass.LATER,
    RefusalClass.POLICY,
    RefusalClass.ACCOUNT,
    RefusalClass.GONE,
)


def body(code: str, message: str = "no.") -> bytes:
    return json.dumps({"code": code, "message": message, "requestId": "R-1"}).encode()


# pattern of the table -> (status, code) pairs that it has to catch
ROWS: dict[str, tuple[RefusalClass, list[tuple[int, str]]]] = {
    "Throttling*": (LATER, [(400, "Throttling"), (429, "Throttling.User"), (503, "ThrottlingException")]),
    "InvalidApi.NotFound": (GONE, [(404, "InvalidApi.NotFound"), (400, "InvalidApi.NotFound")]),
    "UnsupportedOperation": (GONE, [(400, "UnsupportedOperation"), (403, "UnsupportedOperation.Cluster")]),
    "InvalidStatus": (BUSY, [(400, "InvalidStatus.Forbidden"), (409, "InvalidStatus.Unsupported")]),
    "SignatureDoesNotMatch": (ACCOUNT, [(400, "SignatureDoesNotMatch"), (403, "SignatureDoesNotMatch")]),
    "IncompleteSignature": (ACCOUNT, [(400, "IncompleteSignature")]),
    "InvalidAccessKeyId": (ACCOUNT, [(404, "InvalidAccessKeyId.NotFound"), (403, "InvalidAccessKeyId.Inactive")]),
    "InvalidTimeStamp.Expired": (LATER, [(400, "InvalidTimeStamp.Expired")]),
    "InvalidTimeStamp": (ACCOUNT, [(400, "InvalidTimeStamp.Format"), (400, "InvalidTimeStamp")]),
    "InvalidSecurityToken": (ACCOUNT, [(400, "InvalidSecurityToken.Expired"), (400, "InvalidSecurityToken.Malformed")]),
    "Forbidden*": (ACCOUNT, [(403, "Forbidden"), (403, "Forbidden.RAM"), (403, "ForbiddenAction")]),
    "NoPermission": (ACCOUNT, [(403, "NoPermission"), (400, "NoPermission.User")]),
    "InventoryExceeded": (LATER, [(400, "InventoryExceeded"), (500, "InventoryExceeded")]),
    "OperationDenied.NoStock": (LATER, [(403, "OperationDenied.NoStock")]),
    "InsufficientBalance": (LATER, [(400, "InsufficientBalance"), (403, "InsufficientBalance")]),
    "InvalidAccountStatus.NotEnoughBalance": (LATER, [(403, "InvalidAccountStatus.NotEnoughBalance")]),
    "QuotaExceed*": (LATER, [(400, "QuotaExceeded.Node"), (403, "QuotaExceed.ElasticQuota"), (400, "QuotaExceeded")]),
    "MissingParameter*": (POLICY, [(400, "MissingParameter"), (400, "MissingParameter.count")]),
    "InvalidParameter*": (
        POLICY,
        [(400, "InvalidParameter.count"), (500, "InvalidParameter"), (400, "InvalidParameters")],
    ),
    "ErrorClusterNotFound": (POLICY, [(404, "ErrorClusterNotFound"), (400, "ErrorClusterNotFound")]),
    "Invalid[A-Z]*": (POLICY, [(400, "InvalidImageId"), (404, "InvalidEnsRegionId.NotFound")]),
}


def test_every_row_of_the_table_has_its_test() -> None:
    assert dict(REFUSALS) == {p: refusal for p, (refusal, _) in ROWS.items()}


@pytest.mark.parametrize(
    ("status", "code", "refusal"),
    [
        pytest.param(status, code, refusal, id=f"{status} {code} is {refusal}")
        for refusal, codes in ROWS.values()
        for status, code in codes
    ],
)
def test_a_listed_code_is_a_refusal_whatever_the_status(status: int, code: str, refusal: RefusalClass) -> None:
    assert answer(status, body(code)) == Refused(refusal, code, "no.", "R-1")


@pytest.mark.parametrize(
    ("status", "content"),
    [
        pytest.param(400, body("SignatureNonceUsed"), id="a nonce used before: something delivered it twice"),
        pytest.param(500, body("InternalError"), id="5xx with a code that is not listed"),
        pytest.param(400, body("OperationConflict"), id="4xx with a code that is not listed"),
        pytest.param(404, body("SomethingNotFound"), id="404 with a code that is not listed"),
        pytest.param(502, body("InvalidResponse.Backend"), id="Invalid-something as the server's own trouble"),
        pytest.param(400, body("Invalid"), id="Invalid without a name"),
        pytest.param(400, body("Invalidate"), id="a word that begins with Invalid"),
        pytest.param(400, body("throttling"), id="a code in another case is another code"),
        pytest.param(400, body("NotThrottling"), id="a listed code inside another one"),
        pytest.param(400, body("NoPermissionAtAll"), id="a longer code than one listed without a star"),
        pytest.param(503, b"<html><body>Throttling</body></html>", id="a listed code as a word of a page"),
        pytest.param(503, b"Throttling", id="a listed code as bare text"),
        pytest.param(503, b"", id="5xx without a body"),
        pytest.param(408, b"", id="408 without a body"),
        pytest.param(415, b"code=415, message=unsupported content type", id="plain text with the status as code"),
        pytest.param(302, b"", id="a redirect"),
        pytest.param(302, body("Throttling"), id="a redirect that says a listed code"),
        pytest.param(200, body("Throttling"), id="success that says a listed code"),
        pytest.param(200, b"{}", id="2xx without a task"),
        pytest.param(202, b"", id="2xx without a body"),
        pytest.param(202, b'{"task_id": ""}', id="2xx with an empty task"),
        pytest.param(202, b'{"task_id": 7}', id="2xx with a task of a wrong type"),
        pytest.param(202, b'{"task_id": null}', id="2xx with a null task"),
        pytest.param(202, b'["task_id"]', id="2xx with a list"),
        pytest.param(202, b'{"task_id": "T-1"', id="2xx that breaks off"),
        pytest.param(101, b"", id="1xx"),
        pytest.param(503, b'{"code": "Throttling", "task_id": "T-1"}', id="a refusal that names a task"),
        pytest.param(404, b'{"task_id": "T-1"}', id="404 that names a task"),
        pytest.param(404, b'{"code": "ErrorCl', id="404 with JSON that breaks off"),
        pytest.param(404, b"<Error><Code>ErrorCl", id="404 with XML that breaks off"),
        pytest.param(400, b'{"code": ["Throttling"]}', id="a code of a wrong type"),
        pytest.param(400, b"\xff\xfe\x00", id="bytes that are no text"),
        pytest.param(400, b"[" * 100_000, id="JSON too deep to read"),
    ],
)
def test_all_else_is_unclear(status: int, content: bytes) -> None:
    assert isinstance(answer(status, content), Unclear)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        pytest.param(404, b"", id="nothing"),
        pytest.param(404, b"404 page not found", id="plain text"),
        pytest.param(404, b"<html><head><title>404 Not Found</title></head></html>", id="HTML"),
        pytest.param(404, b'{"message": "no such route"}', id="JSON without a code"),
        pytest.param(404, b'{"code": 404, "message": "no such route"}', id="JSON with the status as code"),
        pytest.param(404, b"code=404, message=no such route", id="text with the status as code"),
    ],
)
def test_a_404_without_a_code_of_the_api_says_that_the_path_is_gone(status: int, content: bytes) -> None:
    said = answer(status, content)
    assert isinstance(said, Refused)
    assert (said.refusal, said.code) == (GONE, "404")


@pytest.mark.parametrize("code", ["OperationDenied", "400", "SignatureNonceUsed", "InvalidParameter"])
def test_a_cluster_at_work_is_busy_whatever_the_code(code: str) -> None:
    said = answer(400, body(code, "Cannot operate cluster where state is scaling"))
    assert isinstance(said, Refused)
    assert said.refusal is BUSY


SHAPES: list[tuple[str, Callable[[str, str], str]]] = [
    ("JSON, upper case", lambda c, m: json.dumps({"Code": c, "Message": m, "RequestId": "R-1"})),
    ("JSON, lower case", lambda c, m: json.dumps({"code": c, "message": m, "requestId": "R-1"})),
    ("JSON, snake case", lambda c, m: json.dumps({"code": c, "message": m, "request_id": "R-1"})),
    ("JSON after a byte order mark", lambda c, m: "\ufeff" + json.dumps({"Code": c, "Message": m, "RequestId": "R-1"})),
    ("plain text", lambda c, m: f"code={c}, message={m}, requestId=R-1"),
    ("plain text with colons", lambda c, m: f"Code: {c}, Message: {m}, RequestId: R-1"),
    ("XML", lambda c, m: f"<Error><RequestId>R-1</RequestId><Code>{c}</Code><Message>{m}</Message></Error>"),
    (
        "XML with declaration and line ends",
        lambda c, m: (
            f'<?xml version="1.0"?>\n<Error>\n<RequestId>R-1</RequestId>\n<Code>\n{c}\n</Code><Message>'
            f"<![CDATA[{m}]]></Message>\n</Error>\n"
        ),
    ),
]


@pytest.mark.parametrize("shape", [pytest.param(shape, id=name) for name, shape in SHAPES])
def test_a_code_is_read_from_every_shape_of_body(shape: Callable[[str, str], str]) -> None:
    content = shape("Throttling.User", "too many, slow down").encode()
    assert answer(503, content) == Refused(LATER, "Throttling.User", "too many, slow down", "R-1")


@pytest.mark.parametrize("status", [200, 202, 299])
def test_any_2xx_with_a_task_is_accepted(status: int) -> None:
    content = b'{"cluster_id": "c", "request_id": "R-1", "task_id": "T-1"}'
    assert answer(status, content) == Accepted("T-1", "R-1")


def test_secrets_that_a_server_quotes_are_not_repeated() -> None:
    password = 'Pa"ss<1>'
    quoted_request = json.dumps({"login_password": password})
    said = answer(400, body("InvalidParameter", f"got {quoted_request}, that is {password}"), [password, ""])
    assert isinstance(said, Refused)
    assert "ss<1>" not in said.message
    assert said.message == 'got {"login_password": "***"}, that is ***'


def test_a_message_is_one_printable_line_of_bounded_length() -> None:
    said = read_body(body("X", "a\n\x00b\ud800 " + "z" * 10_000))
    assert said.message.startswith("a b z")
    assert len(said.message) == 500


def test_what_was_said_reads_as_one_clause() -> None:
    assert str(Said("Throttling", "slow down", "R-1")) == "Throttling slow down (request R-1)"
    assert str(Said()) == ""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "Message", "task_id", "x"]), inner),
    max_leaves=10,
)


@given(st.integers(100, 599), st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_makes_it_raise_or_a_refusal_of_what_is_not_listed(status: int, content: bytes) -> None:
    said = answer(status, content)
    if isinstance(said, Accepted):
        assert 200 <= status < 300
    if isinstance(said, Refused) and said.refusal is not GONE and said.refusal is not BUSY:
        assert status >= 400
        assert any(fnmatchcase(said.code, f"{pattern}*") for pattern, _ in REFUSALS)
