"""The commands that give orders: what they ask, record, answer and refuse."""

import io
import json
import os
import pwd
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.cli.author import name_of
from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import LedgerUnavailable, SqlLedger, open_ledger
from autoscaler.model import Override, OverrideKind, RefusalClass
from tests.build import NOW, at, capacity, facts, policy, purchase, workers
from tests.test_cli_records import buy as bought

Run = Callable[..., Result]

FILE = """\
labels: {{team: live}}
cluster_id: {cluster}
dry_run: {dry_run}
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_auto_renew: false
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
price_per_worker_month: 180
currency: CNY
checks: [{{name: sessions, query: sum(s), strategy: per_worker, load_per_worker: 400}}]
limits: {{maximum: 12, per_action: 2, budgets: [{{workers: 10, per: 24h}}]}}
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    """A ledger that the daemon has open, with an evaluation of each policy at noon."""
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock=lambda: NOW)
    folder = tmp_path / "policies"
    folder.mkdir()
    for name, cluster, dry_run in (("edge", "C1", "false"), ("edge-b", "C2", "true")):
        (folder / f"{name}.yaml").write_text(FILE.format(cluster=cluster, dry_run=dry_run), encoding="utf-8")
        known = facts(policy(name=name, cluster_id=cluster), 4000, capacity=capacity(workers(10)))
        ledger.record([Evaluation(known, decide(known))])
    yield ledger
    ledger.close()


class Terminal(io.BytesIO):
    """Somebody at a terminal, who answers so."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a command five minutes after noon; ``answer``: somebody is there to ask, and says so."""

    def invoke(*words: str, answer: str | None = None) -> Result:
        env = {
            "AUTOSCALER_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}",
            "AUTOSCALER_POLICIES": str(tmp_path / "policies"),
        }
        given = None if answer is None else Terminal(answer.encode())
        return CliRunner().invoke(main, words, input=given, env=env)

    with time_machine.travel(at(minutes=5), tick=False):
        yield invoke


WHY = ("--for", "2h", "--reason", "derby", "--author", "ana")


def orders(ledger: SqlLedger) -> list[tuple[str, tuple[str, ...], int | None, str, str]]:
    return [(o.kind.value, o.policies, o.workers, o.author, o.reason) for o in ledger.override_history()]


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


# what is ordered


def test_everything_is_frozen_by_one_line_and_without_a_question(ledger: SqlLedger, run: Run) -> None:
    assert lines(run("override", "freeze", "*", *WHY)) == [
        "Order 1: freeze for all, until 2026-06-01 14:05:00Z (in 2h), by ana: derby.",
        "It is for 2 policies now. No daemon is at work: it is obeyed once one runs.",
    ]
    assert orders(ledger) == [("freeze", ("*",), None, "ana", "derby")]


def test_a_freeze_tells_of_what_was_sent_before_it(ledger: SqlLedger, run: Run) -> None:
    bought(ledger, policy(), "accepted")
    ledger.lease("host-1", ["C1"], timedelta(hours=1))
    assert lines(run("override", "freeze", "edge", *WHY))[1:] == [
        "It is for 1 policy now, and obeyed within 2 s.",
        "  purchase 1 of 3 for edge was already sent, 0 arrived",
    ]


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        pytest.param(["override", "cap", "12", "edge-*"], ("cap", ("edge-*",), 12), id="a cap on a glob"),
        pytest.param(["override", "cap", "0", "edge"], ("cap", ("edge",), 0), id="a cap of nothing"),
        pytest.param(
            ["override", "floor", "12", "edge", "edge-b", "--yes"], ("floor", ("edge", "edge-b"), 12), id="floor"
        ),
        pytest.param(["override", "freeze", "team=live"], ("freeze", ("edge", "edge-b"), None), id="a label"),
        pytest.param(["override", "freeze", "policies/edge.yaml"], ("freeze", ("edge",), None), id="a path"),
        pytest.param(["buy", "edge", "3", "--yes"], ("buy", ("edge",), 3), id="a buy"),
        pytest.param(["buy", "edge*", "3", "--yes"], ("buy", ("edge", "edge-b"), 3), id="a buy for several"),
    ],
)
def test_what_is_recorded(words: list[str], recorded: tuple[object, ...], ledger: SqlLedger, run: Run) -> None:
    run(*words, *WHY)
    assert orders(ledger) == [(*recorded, "ana", "derby")]


def test_until_an_instant(ledger: SqlLedger, run: Run) -> None:
    lines(run("override", "freeze", "*", "--until", "2026-06-01T22:00+08:00", *WHY[2:]))
    assert ledger.override(1).ends_at == at(hours=2)


def test_for_programs(ledger: SqlLedger, run: Run) -> None:
    placed = json.loads(run("buy", "edge", "3", "--yes", "--json", *WHY).stdout)
    assert (placed["v"], placed["override"]["kind"], placed["override"]["ends_at"]) == (
        1,
        "buy",
        "2026-06-01T14:05:00Z",
    )
    assert (placed["effects"][0]["workers"], placed["effects"][0]["money"]) == (3, 540)


# what is asked


def test_a_buy_is_shown_and_asked_about(ledger: SqlLedger, run: Run) -> None:
    shown = lines(run("buy", "edge*", "3", *WHY, answer="y\n"))
    less = "only 2 of 3 now, because maximum 12 leaves 2, 10 are paid"
    assert shown[:6] == [
        "POLICY  WHAT                                               HELD BACK NOW BY",
        f"edge    buys 3, in portions of 2                           {less}",
        f"edge-b  buys 3, in portions of 2 (dry run: only imagined)  {less}",
        "",
        "In all: 3 workers, 540 CNY, and 3 imagined by dry runs. It ends 2026-06-01 14:05:00Z (in 2h).",
        "Order buy 3 for edge, edge-b? [y/N]: y",
    ]
    assert shown[6].startswith("Order 1: buy 3 for edge, edge-b")
    assert shown[-1] == "  edge-b waits: only 2 of 3 now, because maximum 12 leaves 2, 10 are paid"


@pytest.mark.parametrize("words", [["buy", "edge", "3"], ["override", "floor", "12", "edge"]], ids=" ".join)
@pytest.mark.parametrize("answer", ["n\n", "\n"], ids=["no", "nothing"])
def test_what_is_not_confirmed_is_not_ordered(words: list[str], answer: str, ledger: SqlLedger, run: Run) -> None:
    result = run(*words, *WHY, answer=answer)
    assert (result.exit_code, orders(ledger)) == (1, [])
    assert "nothing was ordered" in result.stderr


@pytest.mark.parametrize(
    "words",
    [["buy", "edge", "3"], ["override", "floor", "12", "edge"], ["buy", "edge", "3", "--json"]],
    ids=" ".join,
)
def test_where_nobody_is_there_to_ask_a_script_has_to_say_yes(words: list[str], ledger: SqlLedger, run: Run) -> None:
    result = run(*words, *WHY)
    assert (result.exit_code, orders(ledger)) == (2, [])
    assert "say --yes" in result.stderr


# what is refused


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        pytest.param(["freeze", "egde", *WHY], 1, "there is no policy egde; did you mean edge", id="a slip"),
        pytest.param(["freeze", "zz*", *WHY], 1, "no policy matches zz*", id="a glob of nothing"),
        pytest.param(["freeze", "*", *WHY[2:]], 1, "--for or --until: is missing", id="no end"),
        pytest.param(["freeze", "*", "--for", "8d", *WHY[2:]], 1, "at most 1w", id="too long"),
        pytest.param(["freeze", "*", "--until", "2026-06-01T12:00Z", *WHY[2:]], 1, "in the past", id="past"),
        pytest.param(["freeze", "*", "--until", "2026-06-01T14:00", *WHY[2:]], 1, "no time zone", id="no zone"),
        pytest.param(["freeze", "*", "--until", "soon", *WHY[2:]], 2, "write it as 2026-06-01T08:00Z", id="no instant"),
        pytest.param(["freeze", "*", "--for", "soon", *WHY[2:]], 2, "--for", id="no length"),
        pytest.param(["freeze", "*", "--for", "2h", "--author", "ana"], 2, "--reason", id="no reason"),
        pytest.param(["freeze", "*", *WHY[:2], "--reason", " ", "--author", "ana"], 2, "say why", id="an empty reason"),
        pytest.param(["freeze", *WHY], 2, "POLICY", id="no policy"),
        pytest.param(["cap", "many", "edge", *WHY], 2, "many", id="no number"),
        pytest.param(["floor", "0", "edge", "--yes", *WHY], 1, "workers: is 0", id="a floor of nothing"),
        pytest.param(["end", "7", *WHY[2:]], 2, "there is no override 7", id="end what is not there"),
    ],
)
def test_bad_orders(words: list[str], status: int, says: str, ledger: SqlLedger, run: Run) -> None:
    result = run("override", *words)
    assert (result.exit_code, result.stdout, orders(ledger)) == (status, "", [])
    assert says in result.stderr


def test_every_problem_is_told_at_once(ledger: SqlLedger, run: Run) -> None:
    result = run("buy", "egde", "0", "--yes", *WHY[2:])
    named = [line.split(":")[0].strip() for line in result.stderr.splitlines()[1:]]
    assert named == ["policies", "workers", "--for or --until"]


def test_root_has_to_say_who_it_is(ledger: SqlLedger, run: Run) -> None:
    result = run("override", "freeze", "*", *WHY[:4])
    if os.geteuid() == 0:
        assert (result.exit_code, "as root, say who you are: --author NAME" in result.stderr) == (2, True)
    else:
        assert ledger.override(1).author == name_of(os.geteuid())


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        pytest.param(0, None, id="root is nobody in particular"),
        pytest.param(54321, None, id="a number without a name, as in a container"),
        pytest.param(pwd.getpwnam("nobody").pw_uid, "nobody", id="a user"),
    ],
)
def test_who_a_user_is(uid: int, name: str | None) -> None:
    assert name_of(uid) == name


def test_where_there_is_no_ledger_none_is_begun(run: Run, tmp_path: Path) -> None:
    result = run("override", "freeze", "*", *WHY)
    assert (result.exit_code, list(tmp_path.iterdir())) == (3, [])


# a ledger that cannot say what it did


def unconfirmed(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Orders are recorded, and for so many times the ledger cannot say so."""
    record, left = SqlLedger.add_override, [LedgerUnavailable("server closed the connection", "look at it")] * times

    def recorded(*args: Any, **kwargs: Any) -> Override:
        made = record(*args, **kwargs)
        if left:
            raise left.pop()
        return made

    monkeypatch.setattr(SqlLedger, "add_override", recorded)


def test_an_order_whose_record_was_not_confirmed_is_one_order(
    ledger: SqlLedger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfirmed(monkeypatch, 1)
    assert lines(run("buy", "edge", "3", "--yes", *WHY))[0].startswith("Order 1: buy 3 for edge")
    assert len(orders(ledger)) == 1


def test_while_it_cannot_be_confirmed_the_person_is_told_to_look_before_giving_it_again(
    ledger: SqlLedger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfirmed(monkeypatch, 2)
    result = run("buy", "edge", "3", "--yes", *WHY)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines() == [
        "Error: server closed the connection; look at it",
        "It may have been recorded all the same: see `autoscaler override list` before you give it again.",
    ]
    assert len(orders(ledger)) == 1


def test_nothing_that_fails_after_an_order_was_recorded_hides_that(
    ledger: SqlLedger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: SqlLedger) -> None:
        raise LedgerUnavailable("server closed the connection", "look at it")

    monkeypatch.setattr(SqlLedger, "holders", fails)
    assert run("buy", "edge", "3", "--yes", *WHY).exit_code == 3
    assert orders(ledger) == []


# list and end


def test_orders_are_listed_with_the_time_that_is_left(ledger: SqlLedger, run: Run) -> None:
    assert lines(run("override", "list")) == ["No order is in force."]
    assert lines(run("override", "list", "--all")) == ["No order has been given yet."]
    for kind, names, number in (("freeze", ["*"], None), ("cap", ["edge", "edge-b"], 12), ("buy", ["edge"], 4)):
        ledger.add_override(OverrideKind(kind), names, number, "ana", "derby", NOW, at(hours=2))
    known = facts(policy(), 4000, capacity=capacity(workers(10)))
    wish = purchase(0, "intended", 4, order_id=3)
    ledger.reserve(policy(), NOW, "daemon-1", lambda *_: (Evaluation(known, decide(known)), wish))
    assert lines(run("override", "list")) == [
        "ID  ORDER         POLICIES      ENDS      BY   REASON",
        " 1  freeze        all           in 1h55m  ana  derby",
        " 2  cap 12        edge, edge-b  in 1h55m  ana  derby",
        " 3  buy 4 (done)  edge          in 1h55m  ana  derby",
    ]
    assert lines(run("override", "end", "1", "--reason", "over", "--author", "bo")) == [
        "Order 1 (freeze for all) was ended by bo: over."
    ]
    assert [line.split()[0] for line in lines(run("override", "list"))[1:]] == ["2", "3"]
    assert " 1  freeze        all           ended 0s ago by bo  ana  derby" in lines(run("override", "list", "--all"))
    found = json.loads(run("override", "list", "--all", "--json").stdout)["overrides"]
    assert [(order["id"], order["active"], order["ended_by"]) for order in found] == [
        (3, True, None),
        (2, True, None),
        (1, False, "bo"),
    ]
    assert found[0]["progress"] == [{"policy": "edge", "done": 4, "workers": 4}]


# what a person says of purchases


def test_a_purchase_is_settled_by_whoever_says_so(ledger: SqlLedger, run: Run) -> None:
    bought(ledger, policy(), "unknown")
    early = run("purchases", "settle", "1", "--not-bought", *WHY[2:])
    assert (early.exit_code, "may be said from 2026-06-01 13:20:00Z on" in early.stderr) == (1, True)
    for _ in range(2):  # said again it stays said
        assert lines(run("purchases", "settle", "1", "--bought", "2", *WHY[2:])) == [
            "Purchase 1 is now accepted: bought 2: derby (by ana)."
        ]
    assert run("purchases", "settle", "9", "--bought", "2", *WHY[2:]).exit_code == 2
    assert run("purchases", "settle", "1", *WHY[2:]).exit_code == 2


def test_a_refusal_is_ended_by_whoever_says_so(ledger: SqlLedger, run: Run) -> None:
    bought(ledger, policy(), "rejected", refusal=RefusalClass.ACCOUNT)
    assert lines(run("purchases", "retry", "1", *WHY[2:])) == [
        "Purchase 1 is now rejected: may be tried again: derby (by ana)."
    ]
    bought(ledger, policy(), "fulfilled")
    assert run("purchases", "retry", "2", *WHY[2:]).exit_code == 1
