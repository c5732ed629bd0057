"""``simulate`` as a person uses it: what it prints, writes and refuses."""

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import open_ledger
from autoscaler.model import Override
from autoscaler.policy.files import load_policies
from tests.build import capacity, facts, history, order, reading, workers

POLICY = """\
cluster_id: C1
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {env: PASSWORD}
price_per_worker_month: 180
currency: CNY
checks:
  - {name: sessions, query: sum(sessions), strategy: per_worker, load_per_worker: 400}
limits: {minimum: 2, maximum: 40, per_action: 3, budgets: [{workers: 20, per: 24h}]}
"""
START = datetime(2026, 6, 1, tzinfo=UTC)
ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy, ``edge``, and a load that needs two workers, then ten, for four hours; run from there."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "edge.yaml").write_text(POLICY)
    rows = [f"{START + timedelta(minutes=n):%Y-%m-%dT%H:%MZ},{800 if n < 60 else 4000}" for n in range(241)]
    (tmp_path / "load.csv").write_text("\n".join(["time,sessions", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    for name in ("AUTOSCALER_POLICIES", "AUTOSCALER_LEDGER", "AUTOSCALER_PROMETHEUS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def simulated(*arguments: str) -> dict[str, object]:
    result = run("edge", "--load", "load.csv", "--json", *arguments)
    assert result.exit_code == 0, result.output
    content: dict[str, object] = json.loads(result.output)
    return content


def first(content: dict[str, object]) -> dict[str, object]:
    simulations = content["simulations"]
    assert isinstance(simulations, list)
    found: dict[str, object] = simulations[0]
    return found


def test_what_a_person_reads_in_ten_seconds(folder: Path) -> None:
    result = run("edge", "--load", "load.csv", "--join", "8m")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "load.csv, 2026-06-01 00:00:00Z to 2026-06-01 04:00:30Z (4h): 481 evaluations, one every 30s"
    assert "  2 workers at the start, the policy's minimum; --ready N says otherwise" in lines
    assert "  workers join after 8m" in lines
    told = {re.sub(r"\s{2,}.*", "", line.strip()): line.split()[-1] for line in lines if "  " in line.strip()}
    assert told["workers bought"] == "8"
    assert told["purchases"] == "3"
    assert told["CNY committed"] == "1,440.00"
    assert told["most workers serving"] == "10"
    assert told["times"] == "1"
    assert told["worst, workers short"] == "8"
    assert any("served (█) and short (▓)" in line for line in lines)
    assert any("bought 3 on 2026-06-01 01:00, 3 on 2026-06-01 01:1" in line for line in lines)


def test_the_example_in_the_readme_is_what_is_printed() -> None:
    text = (ROOT / "README.md").read_text()
    [command] = re.findall(r"^autoscaler (simulate .*worldcup98.*)$", text, re.MULTILINE)
    arguments = [ROOT / word if word.startswith("policies/") else word for word in command.split()]
    arguments[1] = ROOT / "policies" / "edge-beijing.yaml"
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0
    [shown] = [block for block in text.split("```") if "workers bought" in block]
    printed = result.output.splitlines()
    assert [line for line in shown.splitlines() if line.strip() and line not in printed] == []


def test_json_is_equal_byte_by_byte_for_equal_inputs(folder: Path) -> None:
    arguments = ("edge", "--load", "load.csv", "--join", "5m,8m,20m", "--failing", "30%", "--seed", "7", "--json")
    once, again, other = run(*arguments), run(*arguments), run(*arguments, "--seed", "8")
    assert once.output == again.output
    assert once.output != other.output
    content = json.loads(once.output)
    assert content["v"] == 1
    assert content["simulations"][0]["market"] == {
        "join": {"least": "5m", "likely": "8m", "most": "20m"},
        "failing": 0.3,
        "seed": 7,
    }
    assert content["simulations"][0]["figures"]["arrived"] < content["simulations"][0]["figures"]["bought"]


def test_what_it_rests_on_is_in_the_json(folder: Path) -> None:
    found = first(simulated("--ready", "4"))
    assert found["load"] == {
        "source": "load.csv",
        "start_at": "2026-06-01T00:00:00Z",
        "end_at": "2026-06-01T04:00:30Z",
        "step": "30s",
        "evaluations": 481,
        "assumed": ["each value holds until the next row, 1m later"],
    }
    assert (found["ready"], found["ready_source"]) == (4, "as --ready says")
    purchases = found["purchases"]
    assert isinstance(purchases, list)
    assert purchases[0] == {
        "at": "2026-06-01T01:00:00Z",
        "asked": 3,
        "arrived": 3,
        "failed": 0,
        "state": "fulfilled",
        "sentence": 'scale out by 3 at 4: "sessions" wants 10 (4000 at 400 each); 6 needed but per_action allows 3',
    }


def test_variants_stand_side_by_side(folder: Path) -> None:
    content = simulated("--set", "limits.per_action=10", "--set", "limits.per_action=10, cooldown=1m")
    simulations = content["simulations"]
    assert isinstance(simulations, list)
    assert [each["name"] for each in simulations] == [
        "edge",
        "limits.per_action=10",
        "limits.per_action=10, cooldown=1m",
    ]
    assert [each["figures"]["purchases"] for each in simulations] == [3, 1, 1]
    assert len({each["version"] for each in simulations}) == 3
    result = run("edge", "--load", "load.csv", "--set", "limits.per_action=10", "--set", "limits.per_action=9")
    assert "limits.per_action=10, and so limits.per_action=9: workers that load needed" in result.output


def test_variants_with_long_names_are_letters_told_above(folder: Path) -> None:
    output = run("edge", "--load", "load.csv", "--set", "limits.per_action=10, cooldown=1m").output
    assert "  A  edge\n  B  limits.per_action=10, cooldown=1m\n" in output


def test_several_policies_stand_side_by_side(folder: Path) -> None:
    (folder / "policies" / "rival.yaml").write_text(
        POLICY.replace("per_action: 3", "per_action: 8").replace("C1", "C2")
    )
    result = run("edge", "policies/rival.yaml", "--load", "load.csv", "--set", "cooldown=1m", "--json")
    names = [each["name"] for each in json.loads(result.output)["simulations"]]
    assert names == ["edge", "edge: cooldown=1m", "rival", "rival: cooldown=1m"]


def test_two_drafts_of_one_name_are_called_by_their_paths(folder: Path) -> None:
    (folder / "drafts").mkdir()
    (folder / "drafts" / "edge.yaml").write_text(POLICY)
    result = run("edge", "drafts/edge.yaml", "--load", "load.csv", "--json")
    assert [each["name"] for each in json.loads(result.output)["simulations"]] == ["edge", "drafts/edge.yaml"]


def test_drafts_of_one_policy_may_lie_side_by_side(folder: Path) -> None:
    (folder / "drafts").mkdir()
    for name in ("bold", "timid"):  # for the same cluster and the same workers
        (folder / "drafts" / f"{name}.yaml").write_text(POLICY)
    result = run("drafts/bold.yaml", "drafts/timid.yaml", "--load", "load.csv", "--json")
    assert result.exit_code == 0, result.output
    assert [each["name"] for each in json.loads(result.output)["simulations"]] == ["bold", "timid"]


def test_the_course_has_a_row_for_each_evaluation(folder: Path) -> None:
    assert run("edge", "--load", "load.csv", "--csv", "course.csv", "--set", "cooldown=1m").exit_code == 0
    with (folder / "course.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 481
    assert rows[120] == {
        "time": "2026-06-01T01:00:00Z",
        "simulation": "edge",
        "needed": "10",
        "serving": "2",
        "in_flight": "3",
        "lost": "0",
        "paid": "5",
        "outcome": "scale_out",
        "reason": "needed",
        "add": "3",
    }
    assert sum(int(row["add"]) for row in rows if row["simulation"] == "edge") == 8


def test_the_cheapest_possible_is_beside_it(folder: Path) -> None:
    pytest.importorskip("highspy")
    found = first(simulated("--optimum"))
    optimum = found["optimum"]
    assert isinstance(optimum, dict)
    assert (optimum["workers"], optimum["money"]) == (8, 1440)
    output = run("edge", "--load", "load.csv", "--optimum").output
    assert re.search(r"cheapest that is never short, terms +8\n", output)
    assert "spent, against its price" in output


def test_steps_do_not_say_whether_load_was_short(folder: Path) -> None:
    sums = "{name: sessions, query: sum(sessions), strategy: per_worker, load_per_worker: 400}"
    steps = "{name: sessions, query: sum(sessions), strategy: steps, steps: [{at: 1000, add: 1}]}"
    (folder / "policies" / "edge.yaml").write_text(POLICY.replace(sums, steps))
    output = run("edge", "--load", "load.csv", "--optimum", "--report", "report.html").output
    assert "no check says how many workers load needs" in output
    assert not re.search("never|cheapest", output)
    assert "never short" not in (folder / "report.html").read_text()


def test_the_report_is_one_page_with_nothing_from_elsewhere(folder: Path) -> None:
    hostile = "<script>alert(1)</script>"
    (folder / "policies" / "edge.yaml").write_text(POLICY + f'description: "{hostile}"\n')
    result = run("edge", "--load", "load.csv", "--report", "report.html", "--set", f"description='{hostile}'")
    assert result.output.endswith("\nReport: report.html\n")
    page = (folder / "report.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href|url)\s*[=(]""", page)
    assert page.count('<svg xmlns="http://www.w3.org/2000/svg" class="chart"') == 4  # whole and close, wide and narrow
    assert "Its course is that of edge, evaluation by evaluation." in page
    assert "Bought 8 workers in 3 purchases. Load was short of workers 1 time, for" in page


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        pytest.param(("--load", "load.csv"), 2, "Missing argument 'POLICY...'", id="no policy"),
        pytest.param(("edgy", "--load", "load.csv"), 2, "there is no policy edgy; did you mean edge?", id="unknown"),
        pytest.param(("edge", "--load", "none.csv"), 1, "none.csv: cannot be read: No such file", id="no file"),
        pytest.param(("edge", "--load", "load.csv", "--last", "7d"), 2, "--last is for", id="last of a file"),
        pytest.param(("edge", "--last", "7d", "--from", "2026-06-01"), 2, "both say where to begin", id="two begins"),
        pytest.param(("edge", "--from", "2026-06-02", "--to", "2026-06-01"), 2, "has to be before", id="backwards"),
        pytest.param(("edge", "--from", "yesterday"), 2, "'yesterday' is not a time; write it like", id="no time"),
        pytest.param(("edge", "--last", "7"), 2, "'7' has no unit; write 7s, 7m or 7h", id="no unit"),
        pytest.param(("edge", "--step", "0"), 2, "0s is too short", id="no step"),
        pytest.param(("edge", "--ready", "-1"), 2, "-1 is not in the range", id="fewer than none"),
        pytest.param(("edge", "--seed", "x"), 2, "'x' is not a valid integer range", id="no seed"),
        pytest.param(("edge", "--failing", "120%"), 2, "'120%' is not a share; write it like 5%", id="over all"),
        pytest.param(("edge", "--failing", "0.5"), 2, "'0.5' is not a share; write it like 5%", id="no percent"),
        pytest.param(("edge", "--join", "5m,8m"), 2, "'5m,8m' is not a delay; write 8m, or 5m,8m,20m", id="two delays"),
        pytest.param(("edge", "--join", "9m,8m,20m"), 2, "least ≤ likely ≤ most", id="out of order"),
        pytest.param(("edge", "--set", "limits.per_action=0"), 2, "limits.per_action: 0 is too small", id="no variant"),
        pytest.param(("edge", "--set", "prometheus=other"), 2, "there is no server 'other'", id="no server"),
        pytest.param(("edge", "--load", "load.csv", "--against-ledger"), 3, "no ledger", id="no ledger"),
        pytest.param(("edge", "--load", "load.csv", "--csv", "no/c.csv"), 2, "no/c.csv cannot be written", id="csv"),
        pytest.param(("edge", "--load", "load.csv", "--report", "no/r"), 2, "no/r cannot be written", id="report"),
        pytest.param(("edge", "--report", "no/r"), 2, "there is no folder no", id="no folder, told before all reading"),
        pytest.param(("edge", "--from", "0001-01-01"), 2, "'0001-01-01' is not of our age", id="before all records"),
        pytest.param(("edge", "--load", "load.csv", "--from", "2027-01-01"), 1, "has no row from --from", id="after"),
        pytest.param(("edge", "--from", "1970-01-01", "--step", "1s"), 2, "more than 10,000,000: give", id="too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_gets_a_clear_answer(
    folder: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, says in result.output) == (status, True), result.output


def test_a_prometheus_that_does_not_answer_is_an_outside_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSCALER_PROMETHEUS_URL", "http://127.0.0.1:1")
    result = run("edge", "--last", "1h")
    assert result.exit_code == 3
    assert (
        "Error: Prometheus default: unreachable: http://127.0.0.1:1: Connection refused (sum(sessions))"
        in result.output
    )


def test_two_workers_less_than_none_is_one_evaluation(folder: Path) -> None:
    (folder / "point.csv").write_text("time,sessions\n2026-06-01T00:00Z,4000\n")
    result = run("edge", "--load", "point.csv", "--ready", "0")
    assert result.exit_code == 0
    assert "1 evaluation, one every" in result.output
    assert "bought 3 on 2026-06-01 00:00" in result.output


# --- beside what the daemon did ---


@pytest.fixture
def ledger_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Fills the ledger with evaluations of ``edge``, each at an instant and with its load, on five workers."""
    monkeypatch.setenv("AUTOSCALER_LEDGER", f"sqlite:///{folder}/ledger.db")
    [policy] = load_policies(folder / "policies").policies

    def fill(evaluations: list[tuple[datetime, int]], *orders: Override) -> None:
        ledger = open_ledger(f"sqlite:///{folder}/ledger.db", clock=lambda: datetime.now(UTC))
        for given in orders:
            named = given.kind, given.policies, given.workers, given.author, given.reason
            ledger.add_override(*named, given.starts_at, given.ends_at)
        for at, load in evaluations:
            known = facts(
                policy,
                now=at,
                readings=(reading(load),),
                capacity=capacity(workers(5)),
                history=history(),
            )
            ledger.record([Evaluation(known, decide(known))])
        ledger.close()

    return fill


def test_a_draft_beside_what_the_daemon_decided(folder: Path, ledger_of: Callable[..., None]) -> None:
    ledger_of(
        [
            (START - timedelta(hours=1), 800),
            (START + timedelta(hours=1), 2000),
            (START + timedelta(hours=9), 800),
        ]
    )
    content = simulated("--against-ledger")
    assert content["daemon"] == [
        {
            "policy": "edge",
            "since": "2026-05-31T23:00:00Z",
            "bought": 0,
            "peak_serving": 5,
            "held": [],
            "purchases": [],
        }
    ]
    output = run("edge", "--load", "load.csv", "--against-ledger").output
    assert re.search(r"\n +edge +daemon: edge\nworkers bought +8 +0\n", output)


def test_a_daemon_that_did_nothing_in_that_time_is_said(folder: Path, ledger_of: Callable[..., None]) -> None:
    ledger_of([(START + timedelta(days=9), 800)])
    result = run("edge", "--load", "load.csv", "--against-ledger")
    assert (result.exit_code, "The ledger knows nothing of edge in that time." in result.output) == (0, True)


def test_what_people_ordered_then_holds_for_the_draft_too(folder: Path, ledger_of: Callable[..., None]) -> None:
    freeze = order("freeze", starts_at=START, ends_at=START + timedelta(hours=2))
    over = order("freeze", starts_at=START - timedelta(hours=9), ends_at=START - timedelta(hours=1))
    others = order("freeze", policies=("transcode",), starts_at=START, ends_at=START + timedelta(hours=4))
    ledger_of([(START + timedelta(minutes=30), 4000)], over, freeze, others)
    found = first(simulated("--against-ledger", "--ready", "4"))
    purchases = found["purchases"]
    assert isinstance(purchases, list)
    assert purchases[0]["at"] == "2026-06-01T02:00:00Z"
    assert "of people held then" not in run("edge", "--load", "load.csv").output
    assert "1 order of people held then, and so here" in run("edge", "--load", "load.csv", "--against-ledger").output
    assert run("edge", "--load", "load.csv", "--against-ledger", "--report", "r.html").exit_code == 0
    page = (folder / "r.html").read_text()
    assert "order of a person" in page
    assert "freeze by ana: derby tonight" in page
