"""Policy tests: the shipped ones pass; what a file may say, what is said of one that cannot be, and of a failure."""

import json
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cli import main
from autoscaler.simulation.policy_tests import load_tests
from autoscaler.simulation.testing import run_test

ROOT = Path(__file__).parent.parent
SHIPPED = load_tests([ROOT / "policies" / "tests"])

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
checks:
  - {name: sessions, query: sum(sessions), strategy: per_worker, load_per_worker: 400}
  - {name: utilization, query: avg(load), strategy: setpoint, target: 0.5}
limits: {maximum: 40, per_action: 5, budgets: [{workers: 20, per: 24h}]}
"""
TEST = """\
policy: edge
start: 2026-06-01T18:00:00+08:00
ready: 5
series: {sessions: "4000x20"}
bought: 5
"""


def test_shipped_policies_are_all_tested() -> None:
    assert SHIPPED.problems == ()
    tested = {test.policy.name.removesuffix(f"-{test.policy.labels.get('site', '')}") for test in SHIPPED.tests}
    shipped = {path.stem for path in (ROOT / "policies").glob("[!_]*.yaml")}
    assert tested == shipped


@pytest.mark.parametrize("test", SHIPPED.tests, ids=lambda test: f"{test.policy.name}: {test.name}")
def test_shipped_policy(test: object) -> None:
    result = run_test(test)  # type: ignore[arg-type]
    assert result.ok, result.failures


def test_the_test_in_the_readme_passes(tmp_path: Path) -> None:
    blocks = (ROOT / "README.md").read_text().split("```yaml\n")
    [block] = [block.split("```")[0] for block in blocks if block.startswith("policy: ")]
    policy = ROOT / "policies" / "edge-beijing.yaml"
    (tmp_path / "readme.yaml").write_text(block.replace("policy: edge-beijing", f"policy: {policy}"))
    loaded = load_tests([tmp_path])
    assert loaded.problems == ()
    assert [run_test(test).failures for test in loaded.tests] == [()]


# --- what a file may say ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies with one, ``edge``, and a folder for its tests; it is the one that commands run in."""
    (tmp_path / "policies" / "tests").mkdir(parents=True)
    (tmp_path / "policies" / "edge.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    for name in ("AUTOSCALER_POLICIES", "AUTOSCALER_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "policies" / "tests"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["test", *arguments])


def outcome(folder: Path, text: str) -> Result:
    (folder / "edge.yaml").write_text(textwrap.dedent(text))
    return run()


def changed(**lines: str | None) -> str:
    """TEST with lines put otherwise; None takes one out."""
    kept = dict(line.split(": ", 1) for line in TEST.splitlines())
    kept.update({key: value for key, value in lines.items() if value is not None})
    return "".join(f"{key}: {value}\n" for key, value in kept.items() if lines.get(key, "") is not None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TEST, id="as it stands"),
        pytest.param(changed(policy="../edge.yaml"), id="a policy by its path"),
        pytest.param(changed(series="{sessions: 4000}"), id="a series of one number needs no quotes"),
        pytest.param(changed(series="{}", ready="0", bought="0"), id="no load at all"),
        pytest.param(changed(expect="[{at: 3m, reason: enough, in_flight: 5, paid: 10}]"), id="expectations"),
        pytest.param(changed(faults="[{at: 0s, purchase: refused, refusal: policy}]", bought="0"), id="a refusal"),
        pytest.param(changed(faults="[{at: 0s, purchase: unanswered}]"), id="bought, and nobody was told"),
        pytest.param(changed(faults="[{at: 0s, lost: 2}]"), id="workers lost for good"),
        pytest.param(changed(series="{utilization: 0.9x3}", bought="4"), id="a mean over the workers at the start"),
        pytest.param(
            changed(series='{utilization: 0.9x3, utilization.over: "8x3"}', ready="8", bought="5"),
            id="a mean over those it says",
        ),
        pytest.param(changed(node_quota="5", bought="0"), id="the quota of the cluster"),
        pytest.param(
            changed(lapsing="[90m, 90m]", series='{sessions: "2000x300"}', bought="2"),
            id="terms that end without renewal are replaced before",
        ),
        pytest.param(changed(overrides="[{kind: cap, workers: 7, lasts: 1h}]", bought="2"), id="an order"),
        pytest.param(
            changed(series='{sessions: "NaNx20"}', expect="[{at: 1m, reason: gap, says: not_a_number}]", bought="0"),
            id="a gap by its name",
        ),
    ],
)
def test_what_a_test_may_say(folder: Path, text: str) -> None:
    result = outcome(folder, text)
    assert (result.exit_code, result.output) == (0, "1 test of 1 policy passed\n")


def test_several_tests_share_what_stands_above_them(folder: Path) -> None:
    result = outcome(
        folder,
        """\
        policy: edge
        start: 2026-06-01T18:00:00+08:00
        ready: 10
        series: {sessions: "4000x20"}
        tests:
          - {name: ten are enough, bought: 0}
          - {name: five are not, ready: 5, bought: 5}
        """,
    )
    assert (result.exit_code, result.output) == (0, "2 tests of 1 policy passed\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("[]", "edge.yaml:1: a list is not a map", id="a list"),
        pytest.param("", "edge.yaml: is empty", id="an empty file"),
        pytest.param(changed(policy=None), "edge.yaml:1: policy: is missing; add it, like policy: edge", id="of what"),
        pytest.param(changed(policy="edgy"), "edge.yaml:1: policy: 'edgy' is no policy of policies; write one of edge",
                     id="an unknown policy"),
        pytest.param(changed(policy="./edge2.yaml"), "edge.yaml:1: policy: './edge2.yaml' is not a file", id="no file"),
        pytest.param(changed(start="2026-06-01"), "edge.yaml:2: start: '2026-06-01' has no time zone", id="no zone"),
        pytest.param(changed(start="soon"), "edge.yaml:2: start: 'soon' is not an instant", id="no instant"),
        pytest.param(changed(start="0001-01-01T00:00:00Z"), "'0001-01-01T00:00:00Z' is not of our age", id="long ago"),
        pytest.param(changed(start="9999-12-31T23:00:00Z"), "is not of our age; write a year from 1970", id="doomsday"),
        pytest.param(changed(ready="1000000"), "edge.yaml:3: ready: 1000000 is too large; write 100000 or less",
                     id="workers galore"),
        pytest.param(changed(series='{utilization: 0.9, utilization.over: "10x2 9.5"}'),
                     "edge.yaml:4: series.utilization.over: 9.5 is not a number of workers", id="half a worker"),
        pytest.param(changed(ready="-1"), "edge.yaml:3: ready: -1 is too small; write 0 or more", id="below nothing"),
        pytest.param(changed(series="{sesions: 4}"), "edge.yaml:4: series.sesions: is no check of edge; write sessions",
                     id="a check that is none"),
        pytest.param(changed(series='{sessions: "4+1 5x"}'),
                     "edge.yaml:4: series.sessions: character 1: '4+1' steps, and does not say how often;"
                     " character 6: '5x' does not say how often", id="slips in a series"),
        pytest.param(changed(series="{utilization: 0.9}", ready="0"),
                     "edge.yaml:4: series.utilization: is a mean, and nothing says over how many", id="a bare mean"),
        pytest.param(changed(bought=None), "edge.yaml:1: expects nothing; add expect or bought", id="nothing expected"),
        pytest.param(changed(expect="[{at: 5m}]"), "edge.yaml:6: expect[0]: expects nothing", id="an instant"),
        pytest.param(changed(expect="[{at: 5m, add: 1}, {at: 3m, add: 1}]"),
                     "edge.yaml:6: expect[1].at: comes before the one above it", id="out of order"),
        pytest.param(changed(expect="[{at: 5m, reason: cooldwn}]"),
                     "edge.yaml:6: expect[0].reason: 'cooldwn' is not a reason of decisions; write", id="a typo"),
        pytest.param(changed(expect="[{at: 5m, outcome: bought}]"),
                     "edge.yaml:6: expect[0].outcome: 'bought' is not one of scale_out,", id="an outcome"),
        pytest.param(changed(expect="[{at: 5m, outcom: hold}]"),
                     "edge.yaml:6: expect[0].outcom: is not a known key; write outcome", id="a key that is none"),
        pytest.param(changed(expect="[{at: 9000d, add: 1}]"), "expect[0].at: is after a year", id="a life's work"),
        pytest.param(changed(faults="[{at: 5m}]"), "faults[0]: does not say what goes wrong", id="an empty fault"),
        pytest.param(changed(faults="[{at: 5m, lost: 1, nodes: timeout}]"), "faults[0]: says nodes and lost", id="two"),
        pytest.param(changed(faults="[{at: 5m, lost: 1, check: sessions}]"), "faults[0].check: goes with gap alone",
                     id="a check without a gap"),
        pytest.param(changed(faults="[{at: 5m, gap: stale, check: sesions}]"),
                     "faults[0].check: 'sesions' is no check of edge; write sessions", id="a fault of no check"),
        pytest.param(changed(faults="[{at: 5m, purchase: lost}]"),
                     "faults[0].purchase: 'lost' is not a fate of purchases; write", id="a fate"),
        pytest.param(changed(faults="[{at: 5m, purchase: unknown, lasts: 5m}]"), "lasts: is not for a purchase",
                     id="a purchase that lasts"),
        pytest.param(changed(overrides="[{kind: floor}]"), "overrides[0].workers: is missing; add it, like workers: 8",
                     id="a floor of nothing"),
        pytest.param(changed(overrides="[{kind: freeze, workers: 1}]"), "overrides[0].workers: is not for a freeze",
                     id="a freeze of workers"),
        pytest.param("start: 2026-06-01T18:00:00Z\npolicy: edge\ntests: []\n", "3: tests: is not a list of tests",
                     id="no tests"),
        pytest.param("start: 2026-06-01T18:00:00Z\npolicy: edge\ntests: [{bought: 0}]\n", "name: is missing",
                     id="a test without a name"),
        pytest.param("start: 2026-06-01T18:00:00Z\npolicy: edge\ntests: [{name: a, bought: 0}, {name: a, bought: 0}]\n",
                     "tests[1].name: is that of another test, on line 3", id="twins"),
    ],
)  # fmt: skip
def test_a_test_that_cannot_be_is_told_why_and_where(folder: Path, text: str, problem: str) -> None:
    result = outcome(folder, text)
    assert result.exit_code == 1
    assert problem in result.output


def test_every_problem_of_every_file_is_told_at_once(folder: Path) -> None:
    (folder / "more.yaml").write_text(changed(ready="many", bought="few"))
    result = outcome(folder, changed(series="{sesions: 4}"))
    assert [line.split(": ")[:2] for line in result.output.splitlines()[:-1]] == [
        ["policies/tests/edge.yaml:4", "series.sesions"],
        ["policies/tests/more.yaml:3", "ready"],
        ["policies/tests/more.yaml:5", "bought"],
    ]


def test_a_broken_policy_is_told_by_its_own_problems(folder: Path) -> None:
    (folder.parent / "edge.yaml").write_text(POLICY.replace("maximum: 40", "maximum: many"))
    output = outcome(folder, TEST).output
    assert "policies/edge.yaml:13: limits.maximum: 'many' is not a whole number" in output
    assert "policies/tests/edge.yaml:1: policy: 'edge' cannot be used; mend its file first" in output


@pytest.mark.parametrize("path", ["nowhere", "nowhere.yaml"])
def test_a_path_that_is_not_there(folder: Path, path: str) -> None:
    result = run(path)
    assert (result.exit_code, "does not exist" in result.output) == (1, True)


# --- what is told ---


def test_a_failure_tells_what_was_expected_what_came_and_why(folder: Path) -> None:
    text = changed(expect="[{at: 0s, outcome: hold, add: 0, says: frozen}]", bought="6")
    assert outcome(folder, text).output.splitlines() == [
        "policies/tests/edge.yaml:1: edge: edge",
        "  policies/tests/edge.yaml:6: at 0s",
        "    expected  outcome hold, add 0, to say 'frozen'",
        "    got       outcome scale_out, add 5, another sentence",
        '    because   scale out by 5 at 5: "sessions" wants 10 (4000 at 400 each); "utilization" has no reading'
        " (no_data: nothing was recorded)",
        "  policies/tests/edge.yaml:5: in the end",
        "    expected  bought 6",
        "    got       bought 5",
        "    because   5 at 0s (fulfilled)",
        "1 of 1 test of 1 policy failed",
    ]


def test_json_is_for_programs(folder: Path) -> None:
    (folder / "edge.yaml").write_text(changed(bought="6"))
    result = run("--json")
    content = json.loads(result.output)
    assert (result.exit_code, content["v"], content["ok"]) == (1, 1, False)
    [test] = content["tests"]
    assert (test["file"], test["line"], test["policy"], test["ok"]) == ("policies/tests/edge.yaml", 1, "edge", False)
    assert test["failures"][0]["expected"] == "bought 6"
    assert run("--json").output == result.output


def test_junit_has_a_case_for_each_test_and_each_problem(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.yaml").write_text("policy: edge\n")
    (folder / "good.yaml").write_text(TEST)
    (folder / "wrong.yaml").write_text(changed(bought="6", name='"six, \\u00e9 & <five>"'))
    report = tmp_path / "report.xml"
    assert run("--junit", str(report)).exit_code == 1
    suites = ElementTree.parse(report).getroot()
    counts = {suite.get("name"): tuple(suite.get(key) for key in ("tests", "failures", "errors")) for suite in suites}
    assert counts["policies/tests/good.yaml"] == ("1", "0", "0")
    assert counts["policies/tests/wrong.yaml"] == ("1", "1", "0")
    assert counts["policies/tests/broken.yaml"][1] == "0"
    [case] = suites.findall("testsuite[@name='policies/tests/wrong.yaml']/testcase")
    assert case.get("name") == "six, é & <five>"


def test_junit_that_cannot_be_written_is_wrong_usage(folder: Path) -> None:
    (folder / "edge.yaml").write_text(TEST)
    result = run("--junit", "nowhere/report.xml")
    assert (result.exit_code, "cannot be written" in result.output) == (2, True)


_WORDS = st.sampled_from(
    [
        *("policy", "edge", "start", "2026-06-01T18:00:00Z", "ready", "series", "sessions", "4000x3", "_x2", "faults"),
        *("at", "5m", "purchase", "unknown", "expect", "outcome", "hold", "bought", "0", "-1", "tests", "name"),
        *("{", "}", "[", "]", ": ", ", ", "\n", "\n  ", "- ", '"', "&a", "*a", "!x", "1e400", "null", "é", "\x00"),
    ]
)


@given(st.lists(_WORDS, max_size=40).map("".join))
def test_whatever_a_file_holds_is_a_test_or_a_problem(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("tests")
    (folder / "any.yaml").write_text(text)
    loaded = load_tests([folder])
    assert loaded.tests or loaded.problems
    assert all(problem.what and problem.mend for problem in loaded.problems)
