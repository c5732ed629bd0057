"""What a person says of a purchase: who and why is kept, and nothing may be said that could yet be wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import time_machine
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import SqlLedger, open_ledger
from autoscaler.model import Purchase, PurchaseState, RefusalClass
from tests.build import NOW, at, capacity, facts, policy, purchase, workers

Say = Callable[..., Result]
S = PurchaseState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    ledger = open_ledger(f"sqlite:///{path}", clock=lambda: NOW)
    yield ledger
    ledger.close()


@pytest.fixture
def say(path: Path) -> Say:
    """``say(minutes, "settle", "1", …)``: Li says something of a purchase so many minutes after noon."""

    def invoke(minutes: float, verb: str, *words: str) -> Result:
        with time_machine.travel(at(minutes=minutes), tick=False):
            return CliRunner().invoke(
                main,
                ["purchases", verb, *words, "--reason", "the console says", "--author", "Li"],
                env={"AUTOSCALER_LEDGER": f"sqlite:///{path}"},
            )

    return invoke


def bought(ledger: SqlLedger, state: str, **fate: object) -> Purchase:
    """A purchase of three, signed and sent at noon, that came to ``state``."""
    known = facts(load=99999, capacity=capacity(workers(10)))
    wish = purchase(0, "intended", 3, NOW, signed_at=NOW)
    _, made = ledger.reserve(policy(), NOW, "daemon-1", lambda *_: (Evaluation(known, decide(known)), wish))
    assert made is not None
    sent = replace(made, state=S(state), sent_at=NOW, **fate)  # type: ignore[arg-type]
    return ledger.change(made.id, lambda _: sent, NOW, "it came so")


def now(ledger: SqlLedger) -> Purchase:
    found = ledger.purchase(1)
    assert found is not None
    return found


def test_not_bought_is_refused_until_the_cloud_can_no_longer_carry_it_out(ledger: SqlLedger, say: Say) -> None:
    bought(ledger, "unknown")
    early = say(79.9, "settle", "1", "--not-bought")
    assert (early.exit_code, now(ledger).state) == (1, S.UNKNOWN)
    assert early.stderr == (
        "Error: purchase 1 may still be carried out: that nothing was bought may be said from "
        "2026-06-01 13:20:00Z on, and it is 2026-06-01 13:19:54Z now\n"
    )
    assert say(80, "settle", "1", "--not-bought").exit_code == 0
    assert now(ledger).state is S.NOT_BOUGHT


def test_who_said_so_and_why_is_kept(ledger: SqlLedger, say: Say) -> None:
    bought(ledger, "unknown")
    said = say(5, "settle", "1", "--bought", "2")
    assert (said.exit_code, now(ledger).state, now(ledger).outstanding) == (0, S.ACCEPTED, 2)
    last = ledger.purchase_events(1)[-1]
    assert (last.author, last.what, last.at) == ("Li", "bought 2: the console says", at(minutes=5))


@pytest.mark.parametrize(
    ("state", "words", "status", "why"),
    [
        pytest.param("accepted", ["settle", "1", "--bought", "3"], 1, "nothing to settle", id="what is known"),
        pytest.param("unknown", ["settle", "1", "--bought", "4"], 1, "1 to 3", id="more than was asked for"),
        pytest.param("unknown", ["settle", "1"], 2, "either --bought N or --not-bought", id="neither"),
        pytest.param("unknown", ["settle", "1", "--bought", "1", "--not-bought"], 2, "either", id="both"),
        pytest.param("unknown", ["settle", "2", "--bought", "1"], 2, "there is no purchase 2", id="of another one"),
        pytest.param("unknown", ["retry", "1"], 1, "no refusal of it waits", id="a retry of what was not refused"),
    ],
)
def test_what_cannot_be_said(ledger: SqlLedger, say: Say, state: str, words: list[str], status: int, why: str) -> None:
    before = bought(ledger, state)
    said = say(200, *words)
    assert (said.exit_code, now(ledger)) == (status, before)
    assert why in said.stderr


@pytest.mark.parametrize("refusal", ["policy", "account", "gone"])
def test_a_retry_ends_a_refusal_that_waits_for_a_person(ledger: SqlLedger, say: Say, refusal: str) -> None:
    bought(ledger, "rejected", refusal=RefusalClass(refusal), code="Forbidden", message="no", ended_at=NOW)
    asking = facts(load=99999, capacity=capacity(workers(10)), now=at(minutes=9))

    def reason() -> str:
        history = ledger.histories([policy()], NOW)["edge"]
        return decide(replace(asking, history=history)).reason.value

    assert reason() == f"refused_{refusal}"
    assert say(8, "retry", "1").exit_code == 0
    assert reason() == "needed"
    assert ledger.purchase_events(1)[-1].what == "may be tried again: the console says"
    events = ledger.purchase_events(1)
    assert say(9, "retry", "1").exit_code == 0, "said again in the same words, it stays said"
    assert ledger.purchase_events(1) == events


def test_a_refusal_that_passes_by_itself_is_not_for_a_person(ledger: SqlLedger, say: Say) -> None:
    bought(ledger, "rejected", refusal=RefusalClass.LATER, code="Throttling", message="", ended_at=NOW)
    assert say(1, "retry", "1").exit_code == 1
