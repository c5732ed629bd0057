"""The judge can say no: every promise that is taken out of the product is missed, and every forged log is seen."""

from dataclasses import replace
from typing import Any

import pytest

from autoscaler.sandbox import Order
from tests.build import NOW
from tests.crashes.campaign import run_all
from tests.crashes.course import Outcome, Plan, Successor
from tests.crashes.effects import Point
from tests.crashes.judge import Evidence, Row, judge
from tests.crashes.replica import WANTED
from tests.crashes.sabotage import SABOTAGES
from tests.crashes.troubles import TROUBLES, Call

BY_NAME = {trouble.name: trouble for trouble in TROUBLES}
NO_FAULT = BY_NAME["no fault"]
UNSEEN = BY_NAME["listing lags, task not in the list, cut after selling"]

RESERVED = Point("reserve", "committed")

# The course in which a broken promise shows, and what the judge then says among other things.
SHOWN_BY = {
    "tries again": (Plan(BY_NAME["cut after selling"]), "a request that is no purchase's"),
    "tries the same again": (Plan(BY_NAME["cut before selling"]), "a purchase was sent 2 times"),
    "takes silence for no": (Plan(BY_NAME["cut after selling"]), "purchase 1 is rejected, and the cloud sold 2"),
    "takes absence for no": (Plan(UNSEEN), "4 workers came of our orders, 3 were wanted"),
    "takes a death for no": (
        Plan(NO_FAULT, crashes=(Point("send", "body sent"),)),
        "purchase 1 is cancelled, and the cloud sold 2",
    ),
    "claims blindly": (
        Plan(NO_FAULT, Successor.WOKEN_SOON, (RESERVED,)),
        "5 workers came of our orders, 3 were wanted",
    ),
    "sends before it writes": (
        Plan(NO_FAULT, crashes=(Point("reserve", "COMMIT"),)),
        "an order that is no purchase's",
    ),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    plans = [plan for plan, _ in SHOWN_BY.values()]
    broken = [replace(plan, sabotage=name) for name, (plan, _) in SHOWN_BY.items()]
    return {str(outcome.plan): outcome for outcome in run_all([*plans, *broken])}


def test_every_sabotage_is_tried() -> None:
    assert SHOWN_BY.keys() == SABOTAGES.keys() - {"none"}


@pytest.mark.parametrize("name", SHOWN_BY)
def test_a_broken_promise_is_seen(name: str, outcomes: dict[str, Outcome]) -> None:
    plan, problem = SHOWN_BY[name]
    assert problem in outcomes[str(replace(plan, sabotage=name))].verdict.problems


@pytest.mark.parametrize("name", SHOWN_BY)
def test_and_kept_it_is_not(name: str, outcomes: dict[str, Outcome]) -> None:
    plan, _ = SHOWN_BY[name]
    assert outcomes[str(plan)].problems == []


def order(nonce: str | None, count: int) -> Order:
    return Order(NOW, "C1", count, nonce, {}, None, (), "console" if nonce is None else "api")


def row(id: int, asked: int, state: str = "fulfilled") -> Row:
    return Row(id, f"nonce-{id}", state, asked)


def problems(**overrides: Any) -> list[str]:
    """What the judge says of an honest course, in which two purchases brought three workers, but for ``overrides``."""
    said: dict[str, Any] = {
        "evidence": Evidence(),
        "rows": [row(1, 2), row(2, 1)],
        "orders": [order("nonce-1", 2), order("nonce-2", 1)],
        "posts": ["nonce-1", "nonce-2"],
        "ready": WANTED,
        "disturbed": False,
    }
    said |= overrides
    return judge(NO_FAULT, said.pop("evidence"), **said).problems


def test_an_honest_course_is_found_so() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        pytest.param(
            {"orders": [order("nonce-1", 2), order("nonce-1", 1)]},
            "2 orders of one purchase",
            id="one nonce was sold twice",
        ),
        pytest.param(
            {"orders": [order("nonce-1", 2), order("nonce-3", 1)]},
            "an order that is no purchase's",
            id="an order has a nonce of its own",
        ),
        pytest.param(
            {"orders": [order("nonce-1", 3), order("nonce-2", 1)], "disturbed": True},
            "purchase 1 asked 2 and the cloud sold 3",
            id="more was sold than was asked",
        ),
        pytest.param(
            {"posts": ["nonce-1", "nonce-2", "nonce-2"]},
            "a purchase was sent 2 times",
            id="a purchase was sent again and not sold",
        ),
        pytest.param({"ready": 3}, "3 workers in the end, 4 were wanted", id="what was wanted is not there"),
        pytest.param({"ready": 5}, "4 workers came of our orders, 3 were wanted", id="more is there than was wanted"),
        pytest.param(
            {"rows": [row(1, 2), row(2, 1, "unknown")]},
            "purchase 2 is still unknown",
            id="nobody settled a purchase",
        ),
        pytest.param(
            {"rows": [row(1, 2), row(2, 1, "not_bought")]},
            "purchase 2 is not_bought, and the cloud sold 1",
            id="a purchase that was sold counts as not bought",
        ),
        pytest.param(
            {"evidence": Evidence(calls=[Call.UNKNOWN], unknown={"nonce-1": 2}), "disturbed": True},
            "a person was called although the cloud shows the 2 workers sold",
            id="a person was asked what evidence says",
        ),
        pytest.param(
            {"evidence": Evidence(calls=[Call.REFUSED]), "disturbed": True},
            "a person was called for a refusal that waits for none",
            id="a person was called for nothing",
        ),
    ],
)
def test_a_forged_log_is_seen(forged: dict[str, Any], problem: str) -> None:
    assert problem in problems(**forged)


def test_an_unknown_purchase_that_was_not_sold_may_need_a_person() -> None:
    evidence = Evidence(calls=[Call.UNKNOWN], unknown={"nonce-1": 0})
    assert problems(evidence=evidence, disturbed=True) == []


def test_workers_of_a_colleague_are_not_ours() -> None:
    evidence = Evidence(colleagues=1)
    assert problems(evidence=evidence, ready=WANTED + 1) == []
