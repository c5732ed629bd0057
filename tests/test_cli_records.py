"""The commands that read the ledger: what they show, to people and to programs, and what they leave alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.decision import Evaluation, decide, withheld
from autoscaler.facts import Reason
from autoscaler.ledger import SqlLedger, open_ledger
from autoscaler.model import Arrival, Inventory, OverrideKind, Purchase, PurchaseState, RefusalClass, Restoral
from autoscaler.policy import Policy
from tests.build import (
    NOW,
    at,
    budget,
    capacity,
    cluster,
    facts,
    gap,
    history,
    joining,
    policy,
    purchase,
    unread,
    workers,
)
from tests.fakes import node

Run = Callable[..., Result]

OTHER = policy(name="edge-b", cluster_id="C2", price_per_worker_month=Fraction(180), currency="CNY")


def clock() -> datetime:
    return NOW


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """A ledger that the daemon has open."""
    ledger = open_ledger(f"sqlite:///{path}", clock=clock)
    yield ledger
    ledger.close()


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    """Runs a command five minutes after noon."""

    def invoke(*words: str) -> Result:
        env = {"AUTOSCALER_LEDGER": f"sqlite:///{path}", "AUTOSCALER_POLICIES": str(path.parent / "policies")}
        return CliRunner().invoke(main, words, env=env)

    with time_machine.travel(at(minutes=5), tick=False):
        yield invoke


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def content(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["v"] == 1
    return found


def evaluate(ledger: SqlLedger, of: Policy | None = None, load: int = 4000, **given: Any) -> None:
    """Record an evaluation of a policy that has ten workers and, by default, needs them."""
    known = facts(of or policy(), load, **({"capacity": capacity(workers(10))} | given))
    ledger.record([Evaluation(known, decide(known))])


def buy(ledger: SqlLedger, of: Policy, state: str, asked: int = 3, **fate: Any) -> Purchase:
    """A purchase that was reserved and sent at noon and came to ``state``."""
    wish = purchase(0, "intended", asked, of=of, nonce=f"n{len(ledger.purchases())}", signed_at=NOW, reserved_at=NOW)
    known = facts(of, 99999, capacity=capacity(workers(10)))
    _, made = ledger.reserve(of, NOW, "daemon-1", lambda *_: (Evaluation(known, decide(known)), wish))
    assert made is not None
    sent = ledger.change(
        made.id, lambda p: replace(p, state=PurchaseState.SENDING, sent_at=NOW), NOW, "sent by daemon-1"
    )
    return ledger.change(
        sent.id, lambda p: replace(p, state=PurchaseState(state), **fate), at(minutes=1), "it came so", "ana"
    )


COMMANDS = [
    ["status"],
    ["decisions"],
    ["purchases", "list"],
    ["purchases", "show", "1"],
    ["explain", "--decision", "1"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_where_there_is_no_ledger_none_is_begun(words: list[str], run: Run, path: Path) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"Error: there is no ledger at {path}")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_settings_that_cannot_be_used_are_wrong_usage(words: list[str]) -> None:
    result = CliRunner().invoke(main, words, env={"AUTOSCALER_LEDGER": "mysql://hunter2secret"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "AUTOSCALER_LEDGER" in result.stderr
    assert "hunter2secret" not in result.output


# status


def test_status_of_a_ledger_that_has_just_begun(ledger: SqlLedger, run: Run) -> None:
    assert lines(run("status")) == ["No policy has been evaluated yet. Daemon at work: none."]


def test_status_shows_each_policys_numbers_and_sentence(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, load=4800, capacity=capacity([*workers(9), *joining(4)]))
    assert lines(run("status")) == [
        "1 policy. Daemon at work: none.",
        "",
        "POLICY  OUTCOME  LOAD  SERVING  IN FLIGHT  WANTED  EVALUATED  SENTENCE",
        'edge    hold     4800        9          4      12  5m ago     hold at 9: "sessions" wants 12 '
        "(4800 at 400 each), 4 already in flight",
    ]


def test_status_shows_dashes_for_what_is_not_known(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, readings=(unread(),), capacity=gap())
    shown = lines(run("status"))
    assert shown[2:5] == [
        "NEEDS A PERSON  BECAUSE",
        "edge            the workers cannot be counted (timeout: no answer within 5s), and nothing is bought",
        "",
    ]
    assert shown[6].split()[:7] == ["edge", "hold", "gap", "-", "-", "-", "5m"]


def test_status_begins_with_what_needs_a_person(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger)
    refused = policy(name="edge-c", cluster_id="C3")
    no = buy(ledger, refused, "rejected", refusal=RefusalClass.ACCOUNT, code="Forbidden", message="no", ended_at=NOW)
    evaluate(ledger, refused, load=0, now=at(seconds=30), history=history(no))
    unknown = buy(ledger, OTHER, "unknown")
    evaluate(ledger, OTHER, load=9999, now=at(seconds=30), history=history(unknown))
    shown = lines(run("status"))
    assert shown[0] == "3 policies, 2 in need of a person, 1 purchase open. Daemon at work: none."
    assert shown[3] == (
        "edge-b          for 5m nobody knows whether purchase 2 bought its 3 workers; see `autoscaler purchases show 2`"
    )
    assert shown[4].startswith("edge-c          purchase 1 was refused (Forbidden: no), until the credential changes")
    assert [line.split()[0] for line in shown[7:10]] == ["edge-b", "edge-c", "edge"]
    attention = content(run("status", "--json"))["attention"]
    assert [(each["policy"], each["need"]) for each in attention] == [
        ("edge-b", "unknown_purchase"),
        ("edge-c", "refused"),
    ]


def test_status_tells_of_a_restored_ledger_where_it_holds_something_back(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, load=9999, history=history(restoral=Restoral(NOW)))
    evaluate(ledger, OTHER, history=history(restoral=Restoral(NOW)))
    assert [
        (each["policy"], "restored at" in each["says"]) for each in content(run("status", "--json"))["attention"]
    ] == [("edge", True)]


def test_status_shows_open_purchases_overrides_and_who_is_at_work(ledger: SqlLedger, run: Run) -> None:
    buy(ledger, policy(), "accepted", arrivals=(Arrival("i-1", at(minutes=1)),))
    buy(ledger, OTHER, "fulfilled")
    ledger.add_override(OverrideKind.FREEZE, ["*"], None, "ana", "derby", at(hours=-1), at(hours=2))
    ledger.add_override(OverrideKind.CAP, ["edge", "edge-*"], 12, "bo", "money", at(hours=-1), at(hours=1))
    ledger.lease("host-1", ["C1", "C2"], timedelta(hours=1))
    shown = lines(run("status"))
    assert shown[0] == "2 policies, 1 purchase open, 2 orders in force. Daemon at work: host-1 (2 clusters)."
    assert shown[shown.index("Orders in force") :] == [
        "Orders in force",
        "ID  ORDER   POLICIES      ENDS      BY   REASON",
        " 1  freeze  all           in 1h55m  ana  derby",
        " 2  cap 12  edge, edge-*  in 55m    bo   money",
        "",
        "Open purchases",
        "ID  POLICY  STATE     ARRIVED  SENT                  AGE",
        " 1  edge    accepted  1 of 3   2026-06-01 12:00:00Z  5m ago",
    ]


def test_status_does_not_let_a_policy_that_was_taken_out_look_alive(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, policy(name="edge-old"), now=at(days=-2))
    evaluate(ledger)
    shown = lines(run("status"))
    assert shown[0].startswith("1 policy.")
    assert shown[-1] == "Not evaluated any more: edge-old"


def test_status_marks_dry_runs_and_shows_budgets_and_lapses_of_the_policies_that_are_here(
    ledger: SqlLedger, run: Run, path: Path
) -> None:
    thrifty = policy(budgets=(budget(20),), worker_auto_renew=False, worker_auto_renew_period=None)
    evaluate(ledger, thrifty)
    evaluate(ledger, OTHER, now=at(minutes=4))
    nodes = tuple(node(f"i-{n}", expires_at=at(days=2)) for n in range(3))
    ledger.record_look(Inventory("C1", NOW, cluster(), nodes, ()))
    write(path.parent / "policies", "edge", "worker_auto_renew: false")
    write(path.parent / "policies", "edge-new", "worker_auto_renew: false", cluster_id="C9")
    shown = lines(run("status"))
    assert shown[0].startswith("3 policies, 2 in need of a person.")
    assert shown[3:5] == [
        "edge            it was last evaluated 5m ago, and should be every 30s",
        "edge-new        it has not been evaluated yet: is a daemon at work?",
    ]
    assert [" ".join(line.split()) for line in shown[6:]] == [
        "POLICY OUTCOME LOAD SERVING IN FLIGHT WANTED BUDGET LEFT NEXT LAPSE EVALUATED SENTENCE",
        'edge (dry run) hold 4000 10 0 10 20 3 in 1d23h 5m ago hold at 10: "sessions" wants 10 (4000 at 400 each), '
        "which is met",
        "edge-new (dry run) - - - - - - - never",
        'edge-b hold 4000 10 0 10 - - 1m ago hold at 10: "sessions" wants 10 (4000 at 400 each), which is met',
    ]


def write(folder: Path, name: str, worker: str, cluster_id: str = "C1") -> None:
    """A policy file, a dry run as by default."""
    folder.mkdir(exist_ok=True)
    text = f"""\
cluster_id: {cluster_id}
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
  {worker}
checks: [{{name: sessions, query: sum(s), strategy: per_worker, load_per_worker: 400}}]
limits: {{maximum: 30, per_action: 5}}
"""
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_status_is_watched_on_a_terminal_alone(ledger: SqlLedger, run: Run) -> None:
    result = run("status", "--watch")
    assert (result.exit_code, "--watch is for a terminal" in result.stderr) == (2, True)


def test_status_for_programs(ledger: SqlLedger, run: Run) -> None:
    buy(ledger, policy(), "accepted")
    found = content(run("status", "--json"))
    assert found["at"] == "2026-06-01T12:05:00Z"
    (shown,) = found["policies"]
    assert (shown["name"], shown["dry_run"]) == ("edge", None)
    assert shown["decision"]["supply"]["serving"] == 10
    assert shown["load"] == '"sessions" wants 250 (99999 at 400 each)'
    assert shown["purchases"] == [1]
    assert found["purchases"][0]["outstanding"] == 3
    assert found["purchases"][0]["terms"]["provision_timeout"] == "1h30m"
    assert (found["overrides"], found["leases"]) == ([], [])


# decisions


def test_decisions_come_newest_first_and_as_many_as_asked_for(ledger: SqlLedger, run: Run) -> None:
    for minute, load in enumerate([4000, 8000, 4000]):
        evaluate(ledger, load=load, now=at(minutes=minute))
    evaluate(ledger, OTHER, now=at(minutes=4))
    assert [line.split()[0] for line in lines(run("decisions"))] == ["ID", "4", "3", "2", "1"]
    assert [line.split()[0] for line in lines(run("decisions", "edge", "--limit", "2"))] == ["ID", "3", "2"]
    assert lines(run("decisions", "edge", "--limit", "2"))[2] == (
        " 2  2026-06-01 12:01:00Z  4m ago  edge    scale_out  "
        'scale out by 10 at 10: "sessions" wants 20 (8000 at 400 each)'
    )
    found = content(run("decisions", "policies/edge-b.yaml", "--json"))["decisions"]
    assert [(each["id"], each["policy"], each["outcome"], each["reason"]) for each in found] == [
        (4, "edge-b", "hold", "enough")
    ]


def test_a_decision_of_a_dry_run_says_so(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, policy(dry_run=True), load=4000)
    assert "edge (dry run)  hold" in lines(run("decisions"))[1]
    assert [each["dry_run"] for each in content(run("decisions", "--json"))["decisions"]] == [True]


def test_decisions_of_an_empty_ledger(ledger: SqlLedger, run: Run) -> None:
    assert lines(run("decisions")) == ["No decision has been recorded yet."]
    assert content(run("decisions", "--json")) == {"v": 1, "decisions": []}


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        pytest.param("egde-b", "did you mean edge-b", id="a slip"),
        pytest.param("edg.yaml", "did you mean edge", id="a path"),
        pytest.param("site", "did you mean site-1, site-2?", id="a file of rows"),
        pytest.param("zzz", "see `autoscaler status`", id="nothing like it"),
    ],
)
@pytest.mark.parametrize("command", [["decisions"], ["purchases", "list", "--policy"]], ids=" ".join)
def test_a_policy_that_the_ledger_does_not_know(
    command: list[str], asked: str, mend: str, ledger: SqlLedger, run: Run
) -> None:
    for name in ("edge", "edge-b", "site-1", "site-2"):
        evaluate(ledger, policy(name=name))
    result = run(*command, asked)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the ledger knows no policy" in result.stderr
    assert mend in result.stderr


# purchases


def test_purchases_list(ledger: SqlLedger, run: Run) -> None:
    buy(ledger, policy(), "rejected", refusal=RefusalClass.LATER, code="InventoryExceeded", message="no stock")
    buy(ledger, policy(), "failed", failed=2, arrivals=(Arrival("i-1", NOW),))
    buy(ledger, OTHER, "unknown")
    assert lines(run("purchases", "list")) == [
        "ID  POLICY  STATE     ARRIVED  SENT                  AGE     REMARK",
        " 3  edge-b  unknown   0 of 3   2026-06-01 12:00:00Z  5m ago",
        " 2  edge    failed    1 of 3   2026-06-01 12:00:00Z  5m ago  2 failed",
        " 1  edge    rejected  0 of 3   2026-06-01 12:00:00Z  5m ago  InventoryExceeded: no stock",
    ]

    def ids(*words: str) -> list[int]:
        return [each["id"] for each in content(run("purchases", "list", "--json", *words))["purchases"]]

    assert ids("--policy", "edge") == [2, 1]
    assert ids("--state", "unknown", "--state", "failed") == [3, 2]
    assert ids("--state", "accepted") == []
    assert ids("--limit", "1") == [3]


def test_purchases_list_of_an_empty_ledger(ledger: SqlLedger, run: Run) -> None:
    assert lines(run("purchases", "list")) == ["Nothing has been bought yet."]


def test_purchases_show_tells_all_there_is(ledger: SqlLedger, run: Run) -> None:
    arrivals = (Arrival("i-1", at(minutes=1)), Arrival("i-2", at(minutes=1)))
    buy(ledger, OTHER, "accepted", task_id="T-1", request_id="R-1", answered_at=NOW, arrivals=arrivals)
    shown = lines(run("purchases", "show", "1"))
    told = dict(line.split("  ", 1) for line in shown[: shown.index("")])
    assert {name.strip(): value.strip() for name, value in told.items()} == {
        "purchase": "1",
        "state": "accepted",
        "policy": f"edge-b (version {OTHER.version})",
        "cluster": "C2",
        "asked": "3",
        "arrived": "2",
        "failed": "0",
        "outstanding": "1",
        "supply before": "0",
        "worker": "ens.sn1.tiny in cn-beijing-telecom",
        "term": "1 month, renewed by 1 month",
        "committed": "540 CNY",
        "reserved": "2026-06-01 12:00:00Z (5m ago)",
        "signed": "2026-06-01 12:00:00Z (5m ago)",
        "sent": "2026-06-01 12:00:00Z (5m ago)",
        "answered": "2026-06-01 12:00:00Z (5m ago)",
        "task": "T-1",
        "request": "R-1",
        "endpoint": "https://cs.aliyuncs.com",
        "credential": "credential-1 (fingerprint)",
        "nonce": "n0",
        "given up after": "1h30m (the cloud's own limit: 60m)",
    }
    assert shown[shown.index("") + 1 :] == [
        "AT                    AGE     STATE     BY      WHAT",
        "2026-06-01 12:00:00Z  5m ago  intended  daemon  reserved by daemon-1",
        "2026-06-01 12:00:00Z  5m ago  sending   daemon  sent by daemon-1",
        "2026-06-01 12:01:00Z  4m ago  accepted  ana     it came so",
        "",
        "WORKER  FIRST SEEN                     LAST SEEN, IF GONE",
        "i-1     2026-06-01 12:01:00Z (4m ago)  -",
        "i-2     2026-06-01 12:01:00Z (4m ago)  -",
    ]


def test_an_unknown_purchase_says_what_it_does_and_until_when(ledger: SqlLedger, run: Run) -> None:
    buy(ledger, policy(), "unknown", message="no whole answer within 60 s")
    shown = lines(run("purchases", "show", "1"))
    assert shown[2] == (
        "unknown         whether anything was bought: it counts as in flight and in budgets until evidence or a person "
        "settles it; not bought may be said from 2026-06-01 13:20:00Z on (in 1h15m)"
    )


def test_a_purchase_for_programs(ledger: SqlLedger, run: Run) -> None:
    buy(ledger, policy(), "accepted")
    found = content(run("purchases", "show", "1", "--json"))
    assert (found["purchase"]["asked"], found["purchase"]["outstanding"]) == (3, 3)
    assert [(event["before"], event["after"], event["author"]) for event in found["events"]] == [
        (None, "intended", None),
        ("intended", "sending", None),
        ("sending", "accepted", "ana"),
    ]


def test_a_purchase_that_is_not_there(ledger: SqlLedger, run: Run) -> None:
    result = run("purchases", "show", "7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: there is no purchase 7; see `autoscaler purchases list`\n"


@pytest.mark.parametrize(
    "words",
    [
        ["purchases", "show"],
        ["purchases", "settle", "--not-bought", "--reason", "x", "--author", "ana"],
        ["purchases", "retry", "--reason", "x", "--author", "ana"],
        ["override", "end", "--reason", "x", "--author", "ana"],
        ["explain", "--decision"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("id", ["9223372036854775808", "0"], ids=["more than a ledger counts to", "before the first"])
def test_a_number_that_nothing_can_have(words: list[str], id: str, ledger: SqlLedger, run: Run) -> None:
    result = run(*words, id)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{id} is not in the range" in result.stderr


# explain --decision


def test_a_past_decision_is_shown_and_comes_out_the_same(ledger: SqlLedger, run: Run) -> None:
    evaluate(ledger, load=8000)
    shown = lines(run("explain", "--decision", "1"))
    assert shown[0] == 'scale out by 10 at 10: "sessions" wants 20 (8000 at 400 each)'
    assert shown[-1] == (
        "Decision 1 of 2026-06-01 12:00:00Z, decided again from what was known then: it comes out the same."
    )
    assert content(run("explain", "--decision", "1", "--json"))["replay"] == {"same": True, "differs": []}


def test_a_decision_that_could_not_be_reserved_comes_out_the_same(ledger: SqlLedger, run: Run) -> None:
    known = facts(load=8000, capacity=capacity(workers(10)))
    ledger.record([withheld(Evaluation(known, decide(known)), Reason.RACED, "another replica was first")])
    shown = lines(run("explain", "--decision", "1"))
    assert shown[0].startswith("hold: another replica was first; otherwise: scale out by 10")
    assert shown[-1].endswith("it comes out the same.")


def test_a_decision_that_comes_out_otherwise_is_a_no(ledger: SqlLedger, run: Run) -> None:
    known = facts(load=8000, capacity=capacity(workers(10)))
    ledger.record([Evaluation(known, replace(decide(known), add=11, sentence="scale out by 11"))])
    result = run("explain", "--decision", "1")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("it comes out otherwise: add, sentence.")
    assert json.loads(run("explain", "--decision", "1", "--json").stdout)["replay"]["differs"] == ["add", "sentence"]


def test_a_decision_that_is_not_there(ledger: SqlLedger, run: Run) -> None:
    result = run("explain", "--decision", "7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no decision 7" in result.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_looking_writes_nothing(words: list[str], ledger: SqlLedger, run: Run, path: Path) -> None:
    buy(ledger, policy(), "accepted")
    ledger.close()
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert run(*words).exit_code == 0
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
