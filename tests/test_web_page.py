"""The page: what it shows, in what words, and how each of its forms refuses what is bad, with nothing changed."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.testclient import TestClient

from autoscaler.decision import Evaluation, decide
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerUnavailable
from autoscaler.model import Outcome, OverrideKind, PurchaseState, RefusalClass
from autoscaler.overview import Need
from autoscaler.web import create_app
from autoscaler.web.page.texts import load_texts
from tests.build import NOW, at, budget, capacity, facts, policy, purchase, unread, workers
from tests.counter import ANA, BO, EDGE, OTHER, SCRIPT, Counter, Token
from tests.test_web import FakeVitals

HOST = "http://autoscaler:8080"
FREEZE = {"kind": "freeze", "policies": "*", "end": "1h", "reason": "derby", "workers": ""}
BUY = {"kind": "buy", "policies": "edge", "end": "1h", "reason": "derby", "workers": "3"}


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def client(counter: Counter) -> Iterator[TestClient]:
    """A browser in which nobody is signed in."""
    with connected(counter) as client:
        yield client


@pytest.fixture
def ana(counter: Counter) -> Iterator[TestClient]:
    """A browser in which ana is signed in."""
    with connected(counter) as client:
        sign_in(client)
        yield client


def connected(counter: Counter, **access: bool) -> TestClient:
    app = create_app(FakeVitals(), CollectorRegistry(), counter.desk(**access))
    return TestClient(app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False)


def sign_in(client: TestClient, token: str = ANA, **form: str) -> httpx.Response:
    return post(client, "/sign-in", {"token": token, **form})


def post(client: TestClient, path: str, form: dict[str, str], origin: str | None = HOST) -> Any:
    """Send a form as a browser does from a page of ``origin``."""
    return client.post(path, data=form, headers={} if origin is None else {"Origin": origin})


def kept(counter: Counter) -> tuple[object, ...]:
    """All that a form could change."""
    return counter.memory.override_history(), counter.memory.purchases(limit=None)


class Shown(HTMLParser):
    """What a page holds: its text without tags, its links, and everything that could act or reach out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.links, self.acting = "", [], []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("td", "th", "dt", "dd", "li", "p") else ""
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.acting.append(tag)
        self.acting += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.ids += [given["id"] or ""] if "id" in given else []

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(response: Any, status: int = 200) -> Shown:
    """A page that came with this status and as HTML."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Shown(response.text)


def words(response: Any, status: int = 200) -> str:
    """The text of a page, its white space made even."""
    return " ".join(shown(response, status).text.split())


PAGES = (
    *("/", "/?q=edge&only=person", "/policies/edge", "/policies/other", "/decisions", "/decisions?policy=edge"),
    *("/decisions/1", "/purchases", "/purchases?only=open&policy=edge", "/purchases/3", "/purchases/5", "/purchases/7"),
    *("/orders", "/orders/1/end", "/orders/2/end", "/order", "/order?policy=edge&policy=other", "/sign-in", "/nowhere"),
    "/order?kind=buy&policies=edge&workers=3&end=1h&reason=%3Cscript%3E&preview=1",
    "/order?kind=what&policies=%3Cscript%3E&workers=%3Cscript%3E&end=%3Cscript%3E&reason=&preview=1",
)


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("lives", [True, False], ids=["lively", "quiet"])
def test_nothing_on_a_page_acts_or_reaches_out(counter: Counter, ana: TestClient, path: str, lives: bool) -> None:
    if lives:
        counter.come_alive()
    response = ana.get(path)
    assert response.status_code in (200, 404, 422), response.text
    page = shown(response, response.status_code)
    assert page.acting == []
    assert [link for link in page.links if not link.startswith(("/", "#")) or link.startswith("//")] == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert len(page.ids) == len(set(page.ids)), "an id is of one element"
    assert page.tags.count("h1") == 1
    assert ANA not in response.text


def test_a_browser_is_told_to_load_nothing_but_our_own_files(client: TestClient) -> None:
    told = client.get("/").headers["content-security-policy"]
    parts = dict(part.strip().split(" ", 1) for part in told.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == "'self'"
    assert "unsafe" not in told


def test_what_stands_beside_the_page_is_kept_by_browsers_until_it_changes(client: TestClient) -> None:
    files = [link for link in shown(client.get("/")).links if link.startswith("/static/")]
    assert len(files) == 3
    for path in files:
        response = client.get(path)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert "nosniff" in response.headers["x-content-type-options"]
    assert client.get("/").headers["cache-control"] == "no-store"
    assert client.get("/static/page.css").status_code == 404
    assert client.get("/static/..%2F__init__.py").status_code == 404


# --- what it shows ---


def test_those_that_need_a_person_come_first_with_the_reason_and_where_to_go(
    counter: Counter, client: TestClient
) -> None:
    counter.keep_unknown(of=OTHER, imagined=False, policy="other")
    page = shown(client.get("/"))
    assert page.ids.index("policy-other") < page.ids.index("policy-edge")
    assert "/purchases/7" in page.links
    text = words(client.get("/"))
    assert "2 policies, 1 needs a person, 1 purchase open" in text
    assert "for 40m nobody knows whether purchase 7 bought its 3 workers" in text


def test_a_row_says_where_a_policy_stands(counter: Counter, client: TestClient) -> None:
    text = words(client.get("/"))
    assert 'sessions 4,000 10 0 10 hold at 10: "sessions" wants 10 (4000 at 400 each), which is met why 0s' in text
    assert "other hold dry run" in text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"q": "edg"}, ["edge"], id="by a part of the name"),
        pytest.param({"q": "TEAM=live"}, ["edge"], id="by a label"),
        pytest.param({"q": "hold met"}, ["edge", "other"], id="by words of the sentence, all of them"),
        pytest.param({"q": "hold nowhere"}, [], id="nothing is like it"),
        pytest.param({"only": "ordered"}, ["other"], id="those under orders"),
        pytest.param({"only": "person"}, ["edge"], id="those that need a person"),
        pytest.param({"only": "person", "q": "other"}, [], id="both at once"),
        pytest.param({"only": "<b>"}, ["edge", "other"], id="a choice that there is not is none"),
    ],
)
def test_policies_can_be_filtered_without_script(
    counter: Counter, client: TestClient, query: dict[str, str], expected: list[str]
) -> None:
    counter.keep_unknown()
    counter.memory.add_override(OverrideKind.FREEZE, ("other",), None, "bo", "calm", at(hours=-1), at(hours=1))
    page = shown(client.get("/", params=query))
    assert [id.removeprefix("policy-") for id in page.ids if id.startswith("policy-")] == expected


def test_an_empty_ledger_is_no_error() -> None:
    empty = Counter(EDGE)
    empty.policies = ()
    empty.now = at(days=2)
    with connected(empty) as client:
        text = words(client.get("/"))
    assert "No policy has been evaluated yet." in text
    assert "No daemon is at work." in text
    assert "No longer evaluated: edge." in text


def test_a_policys_page_draws_its_day_and_tells_it_to_those_who_cannot_see(
    counter: Counter, client: TestClient
) -> None:
    counter.come_alive()
    response = client.get("/policies/edge")
    page = shown(response)
    assert 'aria-label="Workers over the last 24 hours: 10 serving at first, 10 now' in response.text
    assert response.text.count('class="chart"') == 2, "one for a screen, one for a phone"
    for look in ("curve", "mark bought", "mark unclear", "band ordered"):
        assert f'class="{look}"' in response.text
    assert "purchase 7 of 3 workers, unknown" in page.text
    text = words(response)
    assert "the outcome of purchase 7 (3 workers) is unknown" in text
    assert "frozen by bo until" in text


def test_what_the_sentence_says_is_not_said_beside_it(counter: Counter, client: TestClient) -> None:
    counter.evaluate(EDGE, readings=(unread("sessions"),))
    text = words(client.get("/"))
    assert "1 needs a person" in text
    assert text.count('"sessions" has no reading') == 1


def test_a_policys_page_tells_budgets_and_lapses(counter: Counter, client: TestClient) -> None:
    spends = policy(
        name="edge",
        labels={"team": "live"},
        worker_auto_renew=False,
        worker_auto_renew_period=None,
        budgets=(budget(workers=4), budget(money=5000, per=timedelta(days=30))),
        price_per_worker_month=Fraction(180),
        currency="CNY",
    )
    counter.policies = (spends,)
    counter.keep(purchase(id=3, state="fulfilled", asked=4, of=spends, sent_at=at(hours=-5)))
    text = words(client.get("/policies/edge"))
    assert "its own 4 workers per 1d 4 nothing" in text
    assert "its own 5,000 CNY per 30d 720 23 workers" in text
    assert "No unrenewed term ends within seven days." in text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        pytest.param("/policies/egde", "Did you mean edge?", id="a policy, nearly"),
        pytest.param("/policies/" + "x" * 10_000, "There is no policy of this name.", id="a name of 10 kB"),
        pytest.param("/policies/%3Cscript%3E", "There is no policy of this name.", id="a script for a name"),
        pytest.param("/decisions/99", "There is no decision 99.", id="a decision"),
        pytest.param("/purchases/99", "There is no purchase 99.", id="a purchase"),
        pytest.param("/purchases/99999999999999999999", "There is no page at this address.", id="a number beyond any"),
        pytest.param("/purchases/seven", "There is no page at this address.", id="no number at all"),
        pytest.param("/orders/99/end", "there is no override 99", id="an order"),
        pytest.param("/decisions?before=-1", "There is no page at this address.", id="a page before the first"),
        pytest.param("/no/such/page", "There is no page at this address.", id="an address"),
    ],
)
def test_what_there_is_not_is_said_by_a_page(ana: TestClient, path: str, says: str) -> None:
    assert says in words(ana.get(path), 404)


def test_a_decisions_page_holds_all_it_rested_on_and_replays_it(counter: Counter, client: TestClient) -> None:
    counter.come_alive()
    newest = counter.memory.decisions(policy="edge")[0]
    text = words(client.get(f"/decisions/{newest.id}"))
    assert newest.decision.sentence.replace("`", "") in text
    for verdict in newest.decision.verdicts:
        assert verdict.rule in text
    assert "Replayed from what was known then, it comes out the same." in text
    assert f"edge, version {EDGE.version}" in text
    assert "load_per_worker: 400" in text, "the policy as it was"
    assert '"readings": [' in text, "every input"


def test_every_row_leads_to_its_decision(counter: Counter, client: TestClient) -> None:
    counter.come_alive()
    assert "/policies/edge/why" in shown(client.get("/")).links
    newest = counter.memory.decisions(policy="edge")[0].id
    assert client.get("/policies/edge/why").headers["location"] == f"/decisions/{newest}"
    assert "No decision of this policy" in words(client.get("/policies/none/why"), 404)

    made = purchase(id=0, state="intended", of=OTHER)
    known = facts(OTHER, 9000, capacity=capacity(workers(10)))
    _, bought = counter.memory.reserve(OTHER, NOW, "a", lambda *_: (Evaluation(known, decide(known)), made))
    assert bought is not None
    decision = counter.memory.decision_of(bought.id)
    assert f"/decisions/{decision}" in shown(client.get(f"/purchases/{bought.id}")).links


def test_a_decision_that_comes_out_otherwise_says_in_what(counter: Counter, client: TestClient) -> None:
    known = facts(EDGE, 9000, capacity=capacity(workers(10)))
    counter.memory.record([Evaluation(known, replace(decide(known), add=5, reason=Reason.ORDERED, at=at(minutes=1)))])
    text = words(client.get(f"/decisions/{counter.memory.decisions()[0].id}"))
    assert "it comes out otherwise in: at, reason, add" in text


def test_lists_go_back_page_by_page(counter: Counter, client: TestClient) -> None:
    for id in range(1, 122):
        counter.keep(purchase(id=id, state="fulfilled", asked=1, of=EDGE, sent_at=at(hours=-200 + id), arrivals=()))
    seen, path = [], "/purchases?policy=edge"
    while path:
        page = shown(client.get(path))
        seen += [int(id.removeprefix("purchase-")) for id in page.ids if id.startswith("purchase-")]
        path = next((link for link in page.links if "before=" in link), "")
    assert seen == list(range(121, 0, -1))


def test_an_order_that_has_bought_all_says_that_it_asks_for_no_more(counter: Counter, client: TestClient) -> None:
    order = counter.memory.add_override(OverrideKind.BUY, ["edge"], 3, "ana", "derby", NOW, at(hours=1))
    assert "derby 0 of 3 bought so far." in words(client.get("/orders"))
    counter.keep(purchase(id=7, state="accepted", asked=3, of=EDGE, order_id=order.id))
    assert "derby All 3 are bought: it asks for no more." in words(client.get("/orders"))


def test_orders_go_back_page_by_page(counter: Counter, client: TestClient) -> None:
    for _ in range(51):
        counter.ledger.add_override(OverrideKind.FREEZE, ["edge"], None, "ana", "derby", NOW, at(hours=1))
    newest = shown(client.get("/orders"))
    assert "order-1" not in newest.ids
    assert "order-1" in shown(client.get(next(link for link in newest.links if "before=" in link))).ids


def test_a_ledger_that_fails_is_said_by_a_page(counter: Counter, client: TestClient) -> None:
    counter.ledger.fail("latest", LedgerUnavailable("the disk is full", "free some space"))
    assert "the disk is full; free some space" in words(client.get("/"), 503)
    assert "edge" in words(client.get("/"))


def test_a_mistake_of_our_own_is_said_without_its_words(counter: Counter, client: TestClient) -> None:
    counter.ledger.fail("latest", RuntimeError("hush-hush"))
    text = words(client.get("/"), 500)
    assert "The autoscaler made a mistake" in text
    assert "hush-hush" not in text


def test_500_policies_take_less_than_a_second() -> None:
    many = Counter(*(policy(name=f"site-{n:03}", cluster_id=f"C{n}") for n in range(500)))
    with connected(many) as client:
        client.get("/sign-in")  # what is made once
        begun = time.process_time()
        response = client.get("/")
        took = time.process_time() - begun
    assert sum(id.startswith("policy-") for id in shown(response).ids) == 500
    assert took < 1, "of this process's own time: others at work on the machine do not count"


# --- signing in ---


def test_whoever_has_a_token_signs_in_and_out(client: TestClient) -> None:
    assert "Sign in" in words(client.get("/"))
    response = sign_in(client, next="/policies/edge")
    assert (response.status_code, response.headers["location"]) == (303, "/policies/edge")
    cookie = response.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert "Secure" not in cookie, "the browser sees us without TLS, and would not keep it"
    assert ANA not in cookie
    assert "Signed in as ana" in words(client.get("/"))
    assert post(client, "/sign-out", {}).status_code == 303
    assert "Signed in as" not in words(client.get("/"))


def test_a_cookie_that_came_over_tls_stays_on_tls(client: TestClient) -> None:
    response = post(client, "/sign-in", {"token": ANA}, origin="https://autoscaler:8080")
    assert "Secure" in response.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="none"),
        pytest.param("token-of-nobody-0123456789", id="nobody's"),
        pytest.param(SCRIPT, id="a script"),
        pytest.param("x" * 10_000, id="10 kB"),
        pytest.param("tokén-öf-ana", id="letters that no token has"),
    ],
)
def test_a_wrong_token_is_refused_and_answered_late(counter: Counter, client: TestClient, token: str) -> None:
    for _ in range(2):
        response = sign_in(client, token)
        assert "This token is not known." in words(response, 403)
        assert "set-cookie" not in response.headers
        assert not token or token not in response.text
    assert counter.delays == [0.25, 0.5]


@pytest.mark.parametrize(
    "next",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "", "evil", "/\r\nX: y"],
)
def test_signing_in_leads_nowhere_else(client: TestClient, next: str) -> None:
    assert sign_in(client, next=next).headers["location"] == "/"
    assert f'value="{next}"' not in client.get("/sign-in", params={"next": next}).text or not next


def test_without_tokens_nobody_signs_in_and_is_told_why(counter: Counter) -> None:
    counter.tokens = None
    with connected(counter) as client:
        assert "AUTOSCALER_API_TOKENS is not set" in words(client.get("/sign-in"))
        assert sign_in(client).status_code == 403


def forged(counter: Counter, client: TestClient, how: str) -> str:
    """A cookie that was good once, or never."""
    sign_in(client)
    author, ends, signature = client.cookies["autoscaler_session"].split(".")
    match how:
        case "another's name":
            return f"bo.{ends}.{signature}"
        case "a longer life":
            return f"{author}.{int(ends) + 3600}.{signature}"
        case "a digit changed":
            return f"{author}.{ends}.{'0' if signature[0] != '0' else '1'}{signature[1:]}"
        case "its time is up":
            counter.now = at(hours=12)
        case "its token is taken out":
            counter.tokens = [Token("ana", SecretStr("another-token-of-ana-01")), Token("bo", SecretStr(BO))]
        case "no end":
            return f"{author}..{signature}"
        case "an end beyond time":
            return f"{author}.99999999999.{signature}"
        case "an end that is no number":
            return f"{author}.²³.{signature}"
        case "nothing in it":
            return "..."
    return f"{author}.{ends}.{signature}"


@pytest.mark.parametrize(
    "how",
    [
        *("another's name", "a longer life", "a digit changed", "its time is up", "its token is taken out"),
        *("no end", "an end beyond time", "an end that is no number", "nothing in it"),
    ],
)
def test_a_cookie_that_is_not_good_signs_nobody_in(counter: Counter, client: TestClient, how: str) -> None:
    cookie = forged(counter, client, how)
    client.cookies.clear()
    headers = {"Cookie": f"autoscaler_session={cookie}", "Origin": HOST}
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    assert "Signed in as" not in words(client.get("/", headers=list(sent.items())))
    before = kept(counter)
    response = client.post("/orders", data=FREEZE | {"key": "k"}, headers=list(sent.items()))
    assert "You are not signed in" in words(response, 401)
    assert kept(counter) == before


def test_a_session_outlives_the_process_and_the_rotation_of_others_tokens(counter: Counter, ana: TestClient) -> None:
    cookie = ana.cookies["autoscaler_session"]
    counter.tokens = [Token("ana", SecretStr("a-new-token-of-ana-0123")), Token("ana", SecretStr(ANA))]
    with connected(counter) as another:
        another.cookies["autoscaler_session"] = cookie
        assert "Signed in as ana" in words(another.get("/"))


def test_where_reads_need_a_token_every_page_asks_for_it_first(counter: Counter) -> None:
    counter.come_alive()
    with connected(counter, reads_need_token=True) as client:
        for path in PAGES:
            response = client.get(path)
            if path in ("/sign-in", "/nowhere"):
                continue
            assert response.status_code == 303, path
            assert urlsplit(response.headers["location"]).path == "/sign-in"
        assert sign_in(client, next="/decisions?policy=edge").headers["location"] == "/decisions?policy=edge"
        assert client.get("/").status_code == 200


# --- orders ---


def test_an_order_is_shown_first_and_changes_nothing(counter: Counter, ana: TestClient) -> None:
    before = kept(counter)
    text = words(ana.get("/order", params=BUY | {"preview": "1"}))
    assert "Buy 3 workers for each policy" in text
    assert "In all 3 workers for 540 CNY, at once." in text
    assert "buys 3, in portions of 2" in text
    assert "This cannot be undone." in text
    assert kept(counter) == before


def test_a_button_pressed_twice_gives_one_order(counter: Counter, ana: TestClient) -> None:
    page = ana.get("/order", params=BUY | {"preview": "1"}).text
    form = page[page.index('action="/orders"') :]
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    assert hidden.keys() == {*BUY, "key"}
    first, second = (words(post(ana, "/orders", hidden)) for _ in range(2))
    assert "Order 1 is in force" in first
    assert first == second
    (order,) = counter.memory.overrides(NOW)
    assert (order.kind, order.policies, order.workers, order.author) == ("buy", ("edge",), 3, "ana")
    assert (order.reason, order.ends_at) == ("derby", at(hours=1))
    other = ana.get("/order", params=BUY | {"preview": "1"}).text
    assert hidden["key"] not in other, "another order has another key"


def test_a_key_is_of_one_order_only(counter: Counter, ana: TestClient) -> None:
    post(ana, "/orders", BUY | {"key": "k"})
    before = kept(counter)
    assert "other order 1" in words(post(ana, "/orders", BUY | {"key": "k", "workers": "30"}), 409)
    for key in ("", "x" * 65, "\x00", "ключ"):
        assert "nothing was ordered" in words(post(ana, "/orders", BUY | {"key": key}), 400)
    assert kept(counter) == before


def test_a_freeze_tells_of_what_was_sent_already(counter: Counter, ana: TestClient) -> None:
    counter.keep_unknown()
    text = words(post(ana, "/orders", FREEZE | {"key": "k"}))
    assert "purchase 7 of 3 for edge was already sent, and its outcome is unknown" in text


ENDS = [
    pytest.param("90m", at(minutes=90), id="a length"),
    pytest.param("13:30", at(minutes=90), id="a time of today"),
    pytest.param("13:30Z", at(minutes=90), id="with its zone"),
    pytest.param("14:00", at(hours=2), id="another time of today"),
    pytest.param("11:00", at(hours=23), id="a time of day that is over is tomorrow's"),
    pytest.param("11:00Z", at(hours=23), id="a time of tomorrow"),
    pytest.param("23:30+08:00", at(hours=3.5), id="a time elsewhere"),
    pytest.param("02:00+08:00", at(hours=6), id="a time elsewhere, where it is tomorrow then"),
    pytest.param("19:00+08:00", at(hours=23), id="a time elsewhere that is over today"),
    pytest.param("2026-06-01T13:30Z", at(minutes=90), id="an instant"),
    pytest.param("2026-06-01 21:30+08:00", at(minutes=90), id="an instant elsewhere"),
    pytest.param("2026-06-01T21:00+08:00", at(hours=1), id="and as machines write it"),
]


@pytest.mark.parametrize(("end", "ends_at"), ENDS)
def test_an_end_is_said_as_people_say_it(counter: Counter, ana: TestClient, end: str, ends_at: Any) -> None:
    page = ana.get("/order", params=FREEZE | {"end": end, "preview": "1"}).text
    form = page[page.index('action="/orders"') :]
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    post(ana, "/orders", hidden)
    (order,) = counter.memory.overrides(NOW)
    assert order.ends_at == ends_at


BAD_ORDERS = [
    pytest.param({"kind": ""}, "What: is missing", id="no kind"),
    pytest.param({"kind": SCRIPT}, "What: is missing", id="a script for a kind"),
    pytest.param({"workers": ""}, "Workers: is missing", id="no number"),
    pytest.param({"workers": "-3"}, "Workers: is -3; say 1 to", id="a negative count"),
    pytest.param({"workers": "0"}, "Workers: is 0; say 1 to", id="no workers"),
    pytest.param({"workers": "1.5"}, "Workers: is not a whole number", id="a part of a worker"),
    pytest.param({"workers": "\uff19"}, "Workers: is not a whole number", id="digits of another script"),
    pytest.param({"workers": "9" * 5000}, "Workers: is not a whole number", id="a number of 5 kB"),
    pytest.param({"workers": "999999999"}, "Workers: is 999999999; say", id="more than any cluster"),
    pytest.param({"policies": ""}, "For policies: is missing", id="no policy"),
    pytest.param({"policies": "egde"}, "For policies: there is no policy egde; did you mean edge?", id="unknown"),
    pytest.param({"policies": "edge nowhere-*"}, "For policies: no policy matches nowhere-*", id="a glob of nothing"),
    pytest.param({"policies": "team=dead"}, "For policies: no policy has the label team=dead", id="a label of none"),
    pytest.param({"policies": "x" * 10_000}, "For policies: holds 10000 characters in one piece", id="a name of 10 kB"),
    pytest.param(
        {"policies": SCRIPT.replace(" ", "/")}, "For policies: no policy has the label", id="a script for a policy"
    ),
    pytest.param({"end": ""}, "For how long: is missing", id="no end"),
    pytest.param({"end": "2026-06-01T11:00Z"}, "For how long: is in the past", id="an end in the past"),
    pytest.param({"end": "-2h"}, "For how long: is neither a length nor an instant", id="a negative length"),
    pytest.param({"end": "0s"}, "For how long: is not in the future", id="no time at all"),
    pytest.param({"end": "8d"}, "an order holds for at most 1w", id="longer than a week"),
    pytest.param({"end": "2026-06-01T13:00"}, "For how long: has no time zone", id="an instant of no zone"),
    pytest.param({"end": SCRIPT}, "For how long: is neither", id="a script for an end"),
    pytest.param({"end": "9" * 4000 + "d"}, "For how long: is neither", id="a length of 4 kB"),
    pytest.param({"reason": ""}, "Reason: is missing", id="no reason"),
    pytest.param({"reason": " \n\t "}, "Reason: is missing", id="a reason of blanks"),
    pytest.param({"reason": "x" * 10_000}, "Reason: has 10000 characters; use up to 500", id="a reason of 10 kB"),
    pytest.param({"reason": "a\x1b[31m"}, "Reason: holds characters that cannot be shown", id="a reason that colours"),
]


@pytest.mark.parametrize(("bad", "says"), BAD_ORDERS)
def test_a_bad_order_is_refused_before_and_after_its_preview(
    counter: Counter, ana: TestClient, bad: dict[str, str], says: str
) -> None:
    before = kept(counter)
    for response in (
        ana.get("/order", params=BUY | bad | {"preview": "1"}),
        post(ana, "/orders", BUY | bad | {"key": "k"}),
    ):
        assert says in words(response, 422)
        assert "Nothing was ordered, because of one thing:" in words(response, 422)
        assert shown(response, 422).acting == []
    assert kept(counter) == before


@pytest.mark.parametrize(("typed", "ends_at"), ENDS)
def test_an_end_is_typed_as_people_say_it(counter: Counter, ana: TestClient, typed: str, ends_at: datetime) -> None:
    post(ana, "/orders", FREEZE | {"end": typed, "key": "k"})
    assert counter.memory.override(1).ends_at == ends_at


def test_every_problem_of_an_order_is_told_at_once(ana: TestClient) -> None:
    bad = {"kind": "cap", "workers": "many", "policies": "egde", "end": "soon", "reason": ""}
    text = words(ana.get("/order", params=bad | {"preview": "1"}), 422)
    assert "because of 4 things" in text
    for name in ("Workers:", "For policies:", "For how long:", "Reason:"):
        assert name in text


def test_a_script_in_a_reason_is_shown_and_not_run(counter: Counter, ana: TestClient) -> None:
    response = post(ana, "/orders", FREEZE | {"reason": SCRIPT, "key": "k"})
    assert SCRIPT in words(response)
    counter.evaluate(EDGE, 9000, overrides=counter.memory.overrides(NOW))
    for path in ("/", "/orders", "/policies/edge", "/decisions", "/orders/1/end"):
        response = ana.get(path)
        assert "alert(1)" in response.text
        assert "<script>alert" not in response.text
        assert "<img" not in response.text


def test_a_form_that_is_far_too_long_is_refused(counter: Counter, ana: TestClient) -> None:
    before = kept(counter)
    assert post(ana, "/orders", BUY | {"key": "k", "reason": "x" * 100_000}).status_code == 413
    assert kept(counter) == before


def test_an_order_is_ended_with_a_reason(counter: Counter, ana: TestClient) -> None:
    post(ana, "/orders", FREEZE | {"key": "k"})
    before = kept(counter)
    for bad in ("", " ", "x" * 501):
        assert "reason" in words(post(ana, "/orders/1/end", {"reason": bad}), 422).lower()
    assert post(ana, "/orders/99/end", {"reason": "calm"}).status_code == 404
    assert kept(counter) == before
    response = post(ana, "/orders/1/end", {"reason": "calm again"})
    assert (response.status_code, response.headers["location"]) == (303, "/orders?done=ended")
    text = words(ana.get("/orders?done=ended"))
    assert "The order has been ended." in text
    assert "No order is in force." in text
    assert "Ended: calm again" in text
    assert counter.memory.overrides(NOW) == ()
    assert "This order is over already." in words(ana.get("/orders/1/end"))


def test_policies_that_are_ticked_are_ordered_for(ana: TestClient) -> None:
    assert 'value="edge other"' in ana.get("/order?policy=edge&policy=other").text


# --- purchases ---


@pytest.mark.parametrize(
    ("said", "status", "says"),
    [
        pytest.param({"outcome": ""}, 422, "Say whether it was bought or not.", id="nothing said"),
        pytest.param({"outcome": SCRIPT}, 422, "Say whether it was bought or not.", id="a script"),
        pytest.param({"bought": ""}, 422, "Say how many were bought", id="no number"),
        pytest.param({"bought": "x"}, 422, "Say how many were bought", id="no number at all"),
        pytest.param({"bought": "-1"}, 409, "bought must be 1 to 3", id="a negative count"),
        pytest.param({"bought": "0"}, 409, "bought must be 1 to 3", id="none"),
        pytest.param({"bought": "4"}, 409, "bought must be 1 to 3", id="more than were asked for"),
        pytest.param({"outcome": "not_bought"}, 409, "may still be carried out", id="not bought, too early"),
        pytest.param({"reason": ""}, 422, "is missing", id="no reason"),
        pytest.param({"reason": "x" * 10_000}, 422, "has 10000 characters", id="a reason of 10 kB"),
    ],
)
def test_what_cannot_be_said_of_a_purchase_is_refused(
    counter: Counter, ana: TestClient, said: dict[str, str], status: int, says: str
) -> None:
    counter.keep_unknown()
    before = kept(counter)
    good = {"outcome": "bought", "bought": "3", "reason": "seen in the console"}
    response = post(ana, "/purchases/7/settle", good | said)
    assert says in words(response, status)
    assert 'action="/purchases/7/settle"' in response.text, "to be mended and sent again"
    assert '<main id="main" tabindex="-1">' in response.text, "asked for again it would be another page"
    assert kept(counter) == before


def test_a_purchase_is_settled_by_who_knows(counter: Counter, ana: TestClient) -> None:
    counter.keep_unknown()
    assert "Settle it" in words(ana.get("/purchases/7"))
    said = {"outcome": "bought", "bought": "2", "reason": "two in the console"}
    for _ in range(2):  # a button pressed twice says it once
        response = post(ana, "/purchases/7/settle", said)
        assert (response.status_code, response.headers["location"]) == (303, "/purchases/7?done=settled")
    settled = counter.memory.purchase(7)
    assert settled is not None
    assert (settled.state, settled.outstanding) == (PurchaseState.ACCEPTED, 2)
    text = words(ana.get("/purchases/7?done=settled"))
    assert "ana bought 2: two in the console" in text
    assert "Settle it" not in text


def test_not_bought_may_be_said_once_it_is_sure(counter: Counter, ana: TestClient) -> None:
    counter.keep_unknown(sent_at=at(hours=-2))
    post(ana, "/purchases/7/settle", {"outcome": "not_bought", "bought": "", "reason": "no order in the bills"})
    settled = counter.memory.purchase(7)
    assert settled is not None
    assert settled.state is PurchaseState.NOT_BOUGHT


def test_a_refusal_is_ended_by_whoever_mended_it(counter: Counter, ana: TestClient) -> None:
    counter.keep(purchase(id=5, state="rejected", of=EDGE, refusal=RefusalClass.ACCOUNT, code="Forbidden"))
    assert "Allow it again" in words(ana.get("/purchases/5"))
    assert "is missing" in words(post(ana, "/purchases/5/retry", {"reason": ""}), 422)
    assert post(ana, "/purchases/5/retry", {"reason": "granted"}).status_code == 303
    mended = counter.memory.purchase(5)
    assert mended is not None
    assert mended.retried_at == NOW
    assert "Allow it again" not in words(ana.get("/purchases/5"))


def test_what_nobody_has_to_settle_is_not_settled(counter: Counter, ana: TestClient) -> None:
    counter.keep(purchase(id=5, state="fulfilled", of=EDGE))
    before = kept(counter)
    said = {"outcome": "bought", "bought": "2", "reason": "why not"}
    assert "is fulfilled, not unknown" in words(post(ana, "/purchases/5/settle", said), 409)
    assert "no refusal of it waits" in words(post(ana, "/purchases/5/retry", {"reason": "why not"}), 409)
    assert post(ana, "/purchases/99/settle", said).status_code == 404
    assert kept(counter) == before


def test_without_a_name_a_purchase_is_only_looked_at(counter: Counter, client: TestClient) -> None:
    counter.keep_unknown()
    page = shown(client.get("/purchases/7"))
    assert "/sign-in?next=/purchases/7" in page.links
    assert "/purchases/7/settle" not in page.links


# --- forms from elsewhere ---

FORMS = [
    ("/sign-in", {"token": ANA}),
    ("/sign-out", {}),
    ("/orders", FREEZE | {"key": "k"}),
    ("/orders/1/end", {"reason": "calm"}),
    ("/purchases/7/settle", {"outcome": "bought", "bought": "3", "reason": "seen"}),
    ("/purchases/5/retry", {"reason": "granted"}),
]


@pytest.mark.parametrize(("path", "form"), FORMS, ids=[path for path, _ in FORMS])
@pytest.mark.parametrize(
    "origin",
    [
        pytest.param("https://evil.example", id="another site"),
        pytest.param("http://evil.autoscaler:8080", id="a neighbour"),
        pytest.param("http://autoscaler:8081", id="another port"),
        pytest.param("http://autoscaler:8080.evil.example", id="a name that begins as ours"),
        pytest.param("null", id="a page without an origin"),
        pytest.param("http://[::1", id="no origin at all"),
        pytest.param(None, id="nobody says from where"),
    ],
)
def test_a_form_from_elsewhere_does_nothing(
    counter: Counter, ana: TestClient, path: str, form: dict[str, str], origin: str | None
) -> None:
    counter.come_alive()
    before = kept(counter)
    response = post(ana, path, form, origin=origin)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers
    assert kept(counter) == before


@pytest.mark.parametrize(("path", "form"), FORMS[2:], ids=[path for path, _ in FORMS[2:]])
def test_a_form_of_nobody_does_nothing(counter: Counter, client: TestClient, path: str, form: dict[str, str]) -> None:
    counter.come_alive()
    before = kept(counter)
    assert "You are not signed in" in words(post(client, path, form), 401)
    assert kept(counter) == before


@pytest.mark.parametrize(("path", "form"), FORMS[2:], ids=[path for path, _ in FORMS[2:]])
def test_whoever_signs_in_after_a_form_gets_to_a_page(
    counter: Counter, client: TestClient, path: str, form: dict[str, str]
) -> None:
    counter.come_alive()
    page = shown(post(client, path, form), 401)
    (link,) = (link for link in page.links if link.startswith("/sign-in"))
    (then,) = parse_qs(urlsplit(link).query)["next"]
    went_to = sign_in(client, next=then).headers["location"]
    assert client.get(went_to, follow_redirects=True).status_code == 200


def test_a_browser_that_names_no_origin_may_say_that_it_is_ours(counter: Counter, ana: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert ana.post("/orders", data=FREEZE | {"key": "k"}, headers=headers).status_code == 200


# --- texts ---

PAGE = Path(__file__).parent.parent / "autoscaler" / "web" / "page"
TEMPLATES = sorted((PAGE / "templates").glob("*.html"))


def test_every_text_stands_in_the_file_of_texts() -> None:
    template = re.compile(r"{#.*?#}|{%.*?%}|{{.*?}}", re.DOTALL)
    markup = re.compile(r"<[^<>]*>|(?:data|aria)-[a-z]+(?:=\"[^\"]*\")?")  # attributes stand alone in macros and blocks
    for path in TEMPLATES:
        left = markup.sub(" ", template.sub("", path.read_text(encoding="utf-8")))
        assert re.findall(r"\w+", left) == [], path.name


def test_every_text_is_used_and_every_text_used_is_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (*TEMPLATES, *PAGE.glob("*.py"))]
    # A name is written whole, or up to a dot: t("outcome." ~ decision.outcome.value), texts(f"need.{need}").
    whole = {name for source in sources for name in re.findall(r"""["']([a-z_]+(?:\.[a-z_]+)*)["']""", source)}
    begun = {name for source in sources for name in re.findall(r"""["']((?:[a-z_]+\.)+)(?:["']|{)""", source)}
    asked = {
        name for source in sources for name in re.findall(r"""\b(?:t|texts)\(\s*["']([a-z_.]+[a-z_])["']""", source)
    }
    names = load_texts().names()
    assert asked - names == set()
    assert {name for name in names if name not in whole and not any(name.startswith(start) for start in begun)} == set()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("purchase.state", PurchaseState),
        ("purchase.lead", PurchaseState),
        ("outcome", Outcome),
        ("need", Need),
        *((f"order.{part}", OverrideKind) for part in ("kind", "do", "means", "heading", "confirm")),
    ],
)
def test_every_word_of_the_autoscaler_has_its_text(part: str, words: type[StrEnum]) -> None:
    texts = load_texts()
    assert [word.value for word in words if not texts.has(f"{part}.{word.value}")] == []


def test_a_text_counts() -> None:
    texts = load_texts()
    assert [texts("overview.needy_n", n=n) for n in (0, 1, 2)] == [
        "0 need a person",
        "1 needs a person",
        "2 need a person",
    ]
    with pytest.raises(KeyError):
        texts("overview.no_such_text")
