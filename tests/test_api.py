"""The HTTP API: what it shows, how it takes orders, and how it refuses what is bad, with nothing changed."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.testclient import TestClient

from autoscaler.decision import Evaluation, decide
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerUnavailable
from autoscaler.model import OverrideKind
from autoscaler.web import Access, create_app
from tests.build import NOW, at, budget, capacity, facts, policy, purchase, workers
from tests.counter import ANA, BO, EDGE, Counter, Token
from tests.test_web import FakeVitals

FREEZE = {"kind": "freeze", "policies": ["*"], "reason": "derby", "for": "1h"}
BUY = {"kind": "buy", "policies": ["edge"], "workers": 3, "reason": "derby", "for": "1h"}


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def client(counter: Counter) -> Iterator[TestClient]:
    with connected(counter) as client:
        yield client


def connected(counter: Counter, **access: bool) -> TestClient:
    app = create_app(FakeVitals(), CollectorRegistry(), counter.desk(**access))
    return TestClient(app, base_url="http://autoscaler:8080", raise_server_exceptions=False)


def get(client: TestClient, path: str, **query: Any) -> Any:
    response = client.get(f"/api/v1/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def post(client: TestClient, path: str, body: Any = None, token: str | None = ANA, **headers: str) -> Any:
    """The status and the body of an answer to a form in ana's name."""
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body)
    typed = {"Content-Type": "application/json"}
    response = client.post(f"/api/v1/{path}", content=content, headers=typed | authorization | named)
    kind = "application/problem+json" if response.status_code >= 400 else "application/json"
    assert response.headers["content-type"] == kind
    return response.status_code, response.json()


# what it shows


def test_policies_are_paged_by_name(client: TestClient) -> None:
    first = get(client, "policies", limit=1)
    assert ([item["name"] for item in first["items"]], first["next"]) == (["edge"], "edge")
    second = get(client, "policies", limit=1, cursor=first["next"])
    assert ([item["name"] for item in second["items"]], second["next"]) == (["other"], None)


def test_a_policy_with_its_numbers_its_file_and_what_its_budgets_leave(counter: Counter) -> None:
    counter.policies = (policy(budgets=(budget(20), budget(money=5000)), price_per_worker_month=180, currency="CNY"),)
    counter.keep(purchase(1, "accepted", of=counter.policies[0], sent_at=at(minutes=-5)))
    with connected(counter) as client:
        shown = get(client, "policies/edge")
    standing = shown["standing"]
    assert standing["decision"]["sentence"] == 'hold at 10: "sessions" wants 10 (4000 at 400 each), which is met'
    assert (standing["decision"]["supply"]["serving"], standing["decision"]["supply"]["in_flight"]) == (10, 0)
    assert standing["readings"] == [{"check": "sessions", "value": 4000, "at": "2026-06-01T12:00:00Z", "gap": None}]
    assert (standing["purchases"], standing["dry_run"], standing["evaluate_every"]) == ([1], False, "30s")
    assert shown["policy"]["worker"]["login_password"] == {"env": "EDGE_LOGIN_PASSWORD"}
    rooms = [(room["workers"], room["money"], room["committed"], room["leaves"]) for room in shown["rooms"]]
    assert rooms == [(20, None, 3, 17), (None, 5000, 540, 24)]


def test_only_those_that_need_a_person(counter: Counter, client: TestClient) -> None:
    counter.keep(purchase(1, "unknown", sent_at=at(minutes=-5)))
    (shown,) = get(client, "policies", attention=True)["items"]
    assert (shown["name"], shown["attention"][0]["need"]) == ("edge", "unknown_purchase")


def test_a_decision_with_all_it_rested_on(counter: Counter, client: TestClient) -> None:
    (newest, *_) = get(client, "decisions", policy="edge")["items"]
    why = get(client, f"decisions/{newest['id']}")
    assert why["decision"] == newest
    assert [verdict["rule"] for verdict in why["decision"]["verdicts"]][:2] == ["demand", "stabilization"]
    assert why["inputs"]["readings"][0]["load"]["value"] == "4000"
    assert (why["policy"]["name"], why["policy_version"]) == ("edge", EDGE.version)
    assert why["replay"] == {"same": True, "differs": []}


def test_a_decision_that_comes_out_otherwise(counter: Counter, client: TestClient) -> None:
    known = facts(EDGE, 4000, capacity=capacity(workers(10)), now=at(minutes=1))
    counter.memory.record([Evaluation(known, replace(decide(known), reason=Reason.COOLDOWN))])
    assert get(client, "decisions/3")["replay"] == {"same": False, "differs": ["reason"]}


def test_purchases_are_paged_newest_first_and_filtered(counter: Counter, client: TestClient) -> None:
    for id, state in enumerate(["fulfilled", "failed", "accepted"], start=1):
        counter.keep(purchase(id, state, of=EDGE))
    first = get(client, "purchases", limit=2)
    assert ([item["id"] for item in first["items"]], first["next"]) == ([3, 2], "2")
    assert [item["id"] for item in get(client, "purchases", cursor="2")["items"]] == [1]
    assert [item["id"] for item in get(client, "purchases", state=["failed", "accepted"])["items"]] == [3, 2]
    assert get(client, "purchases", policy="nobody") == {"items": [], "next": None}


def test_a_purchase_with_what_happened_to_it(counter: Counter, client: TestClient) -> None:
    counter.keep(purchase(1, "unknown", of=EDGE, sent_at=NOW))
    post(client, "purchases/1/settle", {"bought": 2, "reason": "console"})
    shown = get(client, "purchases/1")
    assert (shown["purchase"]["state"], shown["purchase"]["money"]) == ("accepted", 540)
    assert [(event["what"], event["author"]) for event in shown["events"]] == [("bought 2: console", "ana")]


# how it takes orders


def test_an_order_is_given_obeyed_ended_and_stays(counter: Counter, client: TestClient) -> None:
    status, placed = post(client, "overrides", FREEZE)
    assert (status, placed["override"]["author"], placed["override"]["active"]) == (201, "ana", True)
    assert [order.kind for order in counter.memory.overrides(NOW)] == [OverrideKind.FREEZE]
    assert get(client, "overrides/1") == placed["override"]
    status, ended = post(client, "overrides/1/end", {"reason": "over"}, token=BO)
    assert (status, ended["active"], ended["ended_by"], ended["ended_reason"]) == (200, False, "bo", "over")
    assert get(client, "overrides", active=True)["items"] == []
    assert get(client, "overrides")["items"] == [ended]


def test_a_buy_shows_how_far_it_is(counter: Counter, client: TestClient) -> None:
    post(client, "overrides", BUY)
    counter.keep(purchase(1, "accepted", 2, of=EDGE, order_id=1))
    (order,) = get(client, "overrides", active=True)["items"]
    assert order["progress"] == [{"policy": "edge", "done": 2, "workers": 3}]


def test_a_preview_records_nothing(counter: Counter, client: TestClient) -> None:
    status, shown = post(client, "overrides/preview", {**BUY, "policies": ["team=live"]})
    assert (status, shown["policies"], shown["workers"]) == (200, ["edge"], 3)
    assert shown["money"] == [{"currency": "CNY", "amount": 540}]
    assert shown["effects"][0]["says"] == "buys 3, in portions of 2"
    assert counter.memory.override_history() == ()


def test_what_was_sent_before_a_freeze_is_told(counter: Counter, client: TestClient) -> None:
    counter.keep(purchase(42, "accepted", of=EDGE))
    assert post(client, "overrides", FREEZE)[1]["notes"] == ["purchase 42 of 3 for edge was already sent, 0 arrived"]


def test_a_buy_that_cannot_be_served_now_is_taken_and_says_why(counter: Counter, client: TestClient) -> None:
    counter.keep(purchase(41, "sending", of=EDGE))
    status, placed = post(client, "overrides", BUY)
    assert (status, placed["notes"]) == (201, ["edge waits: purchase 41 is being sent"])


def test_a_repeated_request_is_one_order(counter: Counter, client: TestClient) -> None:
    made = [post(client, "overrides", BUY, Idempotency_Key="k-1") for _ in range(3)]
    assert {(status, answer["override"]["id"]) for status, answer in made} == {(201, 1)}
    assert post(client, "overrides", {**BUY, "workers": 4}, Idempotency_Key="k-1")[0] == 409
    assert len(counter.memory.override_history()) == 1


def test_a_purchase_is_settled_only_when_it_can_be(counter: Counter, client: TestClient) -> None:
    counter.keep(purchase(1, "unknown", of=EDGE, sent_at=NOW))
    status, refused = post(client, "purchases/1/settle", {"bought": 0, "reason": "no order"})
    assert (status, "may be said from 2026-06-01 13:20:00Z" in refused["detail"]) == (409, True)
    counter.now = at(hours=2)
    assert post(client, "purchases/1/settle", {"bought": 0, "reason": "no order"})[1]["state"] == "not_bought"


def test_a_refusal_is_ended(counter: Counter, client: TestClient) -> None:
    counter.keep(replace(purchase(1, "rejected", of=EDGE), refusal="account"))
    assert post(client, "purchases/1/retry", {"reason": "granted"})[0] == 200
    assert counter.memory.purchases()[0].retried_at == NOW


# who may


def test_without_a_token_nothing_is_ordered(counter: Counter, client: TestClient) -> None:
    assert post(client, "overrides", FREEZE, token=None)[0] == 401
    assert post(client, "overrides", FREEZE, token="wrong")[0] == 401
    assert post(client, "overrides", FREEZE, token=None, Authorization=f"Basic {ANA}")[0] == 401
    assert post(client, "overrides", FREEZE, token=ANA[:-1])[0] == 401
    assert counter.memory.override_history() == ()


def test_a_wrong_token_is_refused_before_the_form_is_looked_at(client: TestClient) -> None:
    assert post(client, "overrides", b"{", token="wrong")[0] == 401


def test_where_nobody_has_a_token_orders_are_refused_with_the_mend(counter: Counter) -> None:
    counter.tokens = None
    with connected(counter) as client:
        status, refused = post(client, "overrides", FREEZE)
    assert (status, "AUTOSCALER_API_TOKENS" in refused["detail"]) == (403, True)


def test_tokens_are_rotated_without_a_restart(counter: Counter, client: TestClient) -> None:
    counter.tokens = [Token("cy", SecretStr("another-token-0123456"))]
    assert post(client, "overrides", FREEZE)[0] == 401
    assert post(client, "overrides", FREEZE, token="another-token-0123456")[1]["override"]["author"] == "cy"


def test_reads_are_open_or_need_a_token(counter: Counter, client: TestClient) -> None:
    assert client.get("/api/v1/policies").status_code == 200
    with connected(counter, reads_need_token=True) as closed:
        paths = ("policies", "decisions/1", "overrides", "purchases", "openapi.json")
        assert {closed.get(f"/api/v1/{path}").status_code for path in paths} == {401}
        right = {"Authorization": f"Bearer {ANA}"}
        assert {closed.get(f"/api/v1/{path}", headers=right).status_code for path in paths} == {200}
        assert closed.get("/healthz").status_code == 200


def test_wrong_tokens_are_answered_ever_later_and_right_ones_at_once(counter: Counter, client: TestClient) -> None:
    for _ in range(8):
        post(client, "overrides", FREEZE, token="wrong")
    assert counter.delays == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert post(client, "overrides", FREEZE)[0] == 201
    assert len(counter.delays) == 8
    counter.now += timedelta(minutes=11)
    post(client, "overrides", FREEZE, token="wrong")
    assert counter.delays[8:] == [0.25]


def test_wrong_tokens_that_come_at_once_are_all_answered_late() -> None:
    async def guess() -> None:
        answers = asyncio.Event()

        async def until_then(_seconds: float) -> None:
            await answers.wait()

        access = Access(lambda: [Token("ana", SecretStr(ANA))], reads_need_token=False, sleep=until_then)
        guesses = [asyncio.create_task(access.author_of(f"wrong-{n}", "192.0.2.7")) for n in range(50)]
        assert await access.author_of(ANA, "192.0.2.7") == "ana"
        await asyncio.sleep(0)
        assert not any(each.done() for each in guesses)
        answers.set()
        assert await asyncio.gather(*guesses) == [None] * 50

    asyncio.run(guess())


# what it refuses

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        pytest.param({}, 422, "kind", id="nothing"),
        pytest.param([], 422, "body", id="not an object"),
        pytest.param(b"{", 422, "body", id="not JSON"),
        pytest.param(b"\xff\xfe", 422, "body", id="not text"),
        pytest.param({**FREEZE, "kind": "melt"}, 422, "kind", id="no such kind"),
        pytest.param({**FREEZE, "author": "bo"}, 422, "author", id="an author, who is the token's"),
        pytest.param({**FREEZE, "policies": []}, 422, "policies", id="no policy"),
        pytest.param({**FREEZE, "policies": ["nobody"]}, 422, "policies", id="an unknown policy"),
        pytest.param({**FREEZE, "policies": ["x" * 10_000]}, 422, "policies", id="a name of 10 kB"),
        pytest.param({**FREEZE, "policies": [SCRIPT]}, 422, "policies", id="a script for a policy"),
        pytest.param({**FREEZE, "policies": ["x"] * 1001}, 422, "policies", id="too many policies"),
        pytest.param({**FREEZE, "reason": " "}, 422, "reason", id="no reason"),
        pytest.param({**FREEZE, "reason": "x" * 10_000}, 422, "reason", id="a reason of 10 kB"),
        pytest.param({**FREEZE, "reason": "a\u0000b"}, 422, "reason", id="a zero byte"),
        pytest.param(
            b'{"kind":"freeze","policies":["*"],"for":"1h","reason":"\\ud800"}', 422, "", id="half a character"
        ),
        pytest.param({**FREEZE, "for": "soon"}, 422, "for", id="no length"),
        pytest.param({**FREEZE, "for": "9" * 60 + "y"}, 422, "", id="a length beyond all"),
        pytest.param({**FREEZE, "for": "8d"}, 422, "end", id="too long"),
        pytest.param({**FREEZE, "for": "0"}, 422, "end", id="no time at all"),
        pytest.param({**FREEZE, "for": None}, 422, "end", id="no end"),
        pytest.param({**FREEZE, "until": "2026-06-01T13:00:00Z"}, 422, "end", id="two ends"),
        pytest.param({**FREEZE, "for": None, "until": "2026-06-01T11:00:00Z"}, 422, "end", id="an end in the past"),
        pytest.param({**FREEZE, "for": None, "until": "2026-06-01T13:00:00"}, 422, "until", id="no time zone"),
        pytest.param({**FREEZE, "for": None, "until": "9999-12-31T23:59:59-12:00"}, 422, "end", id="the end of time"),
        pytest.param({**BUY, "workers": -3}, 422, "workers", id="a negative count"),
        pytest.param({**BUY, "workers": 0}, 422, "workers", id="buy nothing"),
        pytest.param({**BUY, "workers": 10**40}, 422, "workers", id="more workers than atoms"),
        pytest.param({**BUY, "workers": "3"}, 422, "workers", id="a text for a number"),
        pytest.param({**BUY, "workers": 2.5}, 422, "workers", id="half a worker"),
        pytest.param({**BUY, "workers": None}, 422, "workers", id="how many is left out"),
        pytest.param(b'"' + b"x" * 70_000 + b'"', 413, None, id="a body of 70 kB"),
    ],
)
def test_a_bad_order_is_refused_and_nothing_is_changed(
    counter: Counter, client: TestClient, body: Any, status: int, field: str | None
) -> None:
    for path in ("overrides", "overrides/preview"):
        answered, refused = post(client, path, body)
        assert (answered, refused["status"]) == (status, status)
        if field:
            assert field in [error["field"] for error in refused["errors"]], refused
        assert SCRIPT not in refused["detail"]
    assert counter.memory.override_history() == ()


@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        pytest.param(
            json.dumps(FREEZE).encode(),
            {"Content-Type": "application/x-www-form-urlencoded"},
            ("body", "is not a JSON object", "send an object with Content-Type: application/json"),
            id="curl -d without a header",
        ),
        pytest.param(
            b'{"kind": "freeze", "reason": "\xff"}',
            {},
            ("body", "is not JSON", "send an object with Content-Type: application/json"),
            id="not UTF-8",
        ),
        pytest.param(
            b"[" * 60_000,
            {},
            ("body", "is not JSON", "send an object with Content-Type: application/json"),
            id="far too deep",
        ),
        pytest.param(
            json.dumps({**FREEZE, "for": "-1h"}).encode(),
            {},
            ("for", "'-1h' is negative", "see the API's openapi.json"),
            id="a negative length",
        ),
    ],
)
def test_what_the_form_of_an_order_is_not_is_told(
    client: TestClient, body: bytes, headers: dict[str, str], problem: tuple[str, str, str]
) -> None:
    status, refused = post(client, "overrides", body, **headers)
    assert status in (400, 422)
    assert [tuple(error.values()) for error in refused["errors"]] == [problem]


def test_a_script_in_a_reason_is_kept_as_text_and_given_as_json(client: TestClient) -> None:
    placed = post(client, "overrides", {**FREEZE, "reason": SCRIPT})[1]
    assert placed["override"]["reason"] == SCRIPT


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "https://evil.example"}, 403, id="another site"),
        pytest.param({"Origin": "null"}, 403, id="a page of nowhere"),
        pytest.param({"Origin": "http://autoscaler:9"}, 403, id="another port"),
        pytest.param({"Origin": "http://autoscaler:8080"}, 201, id="its own"),
        pytest.param({"Idempotency_Key": ""}, 422, id="an empty key"),
        pytest.param({"Idempotency_Key": "k" * 201}, 422, id="a long key"),
        pytest.param({"Idempotency_Key": "k 1"}, 422, id="a key with a blank"),
    ],
)
def test_headers(counter: Counter, client: TestClient, headers: dict[str, str], status: int) -> None:
    assert post(client, "overrides", FREEZE, **headers)[0] == status
    assert len(counter.memory.override_history()) == (status == 201)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/api/v1/nowhere", 404, id="no such path"),
        pytest.param("DELETE", "/api/v1/overrides/1", 405, id="a wrong method"),
        pytest.param("PUT", "/healthz", 405, id="and outside of the API"),
        pytest.param("GET", "/api/v1/policies/nobody", 404, id="no such policy"),
        pytest.param("GET", "/api/v1/decisions/99", 404, id="no such decision"),
        pytest.param("GET", "/api/v1/purchases/99", 404, id="no such purchase"),
        pytest.param("GET", "/api/v1/overrides/99", 404, id="no such order"),
        pytest.param("GET", "/api/v1/purchases/0", 422, id="no possible id"),
        pytest.param("GET", "/api/v1/purchases/99999999999999999999", 422, id="an id beyond all"),
        pytest.param("GET", "/api/v1/purchases/x", 404, id="not an id"),
        pytest.param("GET", "/api/v1/purchases?limit=0", 422, id="a page of nothing"),
        pytest.param("GET", "/api/v1/purchases?limit=501", 422, id="too long a page"),
        pytest.param("GET", "/api/v1/purchases?cursor=x", 422, id="no cursor"),
        pytest.param("GET", "/api/v1/purchases?state=lost", 422, id="no such state"),
        pytest.param("POST", "/api/v1/overrides/99/end", 404, id="end what is not there"),
        pytest.param("POST", "/api/v1/purchases/99/settle", 404, id="settle what is not there"),
        pytest.param("POST", "/api/v1/purchases/99/retry", 404, id="retry what is not there"),
    ],
)
def test_every_error_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    body = {"reason": "x", **({"bought": 1} if "settle" in path else {})} if method == "POST" else None
    response = client.request(method, path, json=body, headers={"Authorization": f"Bearer {ANA}"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        pytest.param(
            LedgerUnavailable("the ledger is locked", "end it"), 503, "the ledger is locked; end it", id="ledger"
        ),
        pytest.param(RuntimeError("hush-hush"), 500, "the autoscaler made a mistake", id="a mistake of ours"),
    ],
)
def test_a_failure_is_a_problem_without_its_inside(
    counter: Counter, client: TestClient, error: Exception, status: int, detail: str
) -> None:
    counter.ledger.fail("add_override", error)
    answered, refused = post(client, "overrides", FREEZE)
    assert (answered, refused["detail"].startswith(detail)) == (status, True)
    assert "hush-hush" not in json.dumps(refused)


def test_it_describes_itself(client: TestClient) -> None:
    described = get(client, "openapi.json")
    assert described["openapi"].startswith("3.")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert ("security" in operation) is (method == "post"), path
            assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]
    assert {"/overrides", "/overrides/{id}/end", "/purchases/{id}/settle"} < described["paths"].keys()
