"""The commands that judge policies: every problem on its line, and one sentence for what would be done now."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from autoscaler.cli import main
from autoscaler.clock import utc_now
from autoscaler.ledger import open_ledger
from autoscaler.model import OverrideKind
from autoscaler.policy.files import load_policies
from autoscaler.sandbox import TEST_CREDENTIALS, DataFault, ReplayedPrometheus, SandboxCloud

SECRET = "Sandbox-0nly!"
CLUSTER_ID = "C1"
GOOD = f"""\
cluster_id: {CLUSTER_ID}
dry_run: false
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
checks:
  - name: sessions
    query: sum(live_sessions)
    strategy: per_worker
    load_per_worker: 400
limits:
  maximum: 40
  per_action: 5
  budgets: [{{workers: 10, per: 24h}}]
"""
MANY = """\
each:
  - {name: a, cluster: C7}
  - {name: b, cluster: C8}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of policies with one good policy, ``edge``."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "edge.yaml").write_text(GOOD)
    return folder


def check(*words: str | Path, **environ: str) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, words)], env=environ)


# check


def test_good_policies_are_said_to_be_good(folder: Path) -> None:
    (folder / "site.yaml").write_text(GOOD.replace(f"cluster_id: {CLUSTER_ID}", MANY + "cluster_id: ${cluster}"))
    result = check(folder)
    assert (result.exit_code, result.stdout) == (0, "3 policies in 2 files can be used; no problems\n")


def test_the_folder_of_the_settings_is_checked_where_none_is_named(folder: Path) -> None:
    result = check(AUTOSCALER_POLICIES=str(folder))
    assert (result.exit_code, result.stdout) == (0, "1 policy in 1 file can be used; no problems\n")


def test_every_problem_of_every_file_has_its_line(folder: Path) -> None:
    wrong = GOOD.replace("maximum: 40", "maximum: many").replace("per_worker\n", "per_wrker\n")
    (folder / "edge.yaml").write_text(wrong)
    (folder / "other.yaml").write_text(GOOD.replace("dry_run: false", "dry_run: false\ncooldwn: 5m"))
    result = check(folder)
    *problems, closing = result.stdout.splitlines()
    assert result.exit_code == 1
    assert [line.split(" ")[:2] for line in problems] == [
        [f"{folder}/edge.yaml:14:", "checks[0].strategy:"],
        [f"{folder}/edge.yaml:17:", "limits.maximum:"],
        [f"{folder}/other.yaml:3:", "cooldwn:"],
    ]
    assert all("; " in line for line in problems)
    assert closing == "0 policies in 0 files can be used; 3 errors"


def test_a_warning_is_marked_and_no_failure(folder: Path) -> None:
    (folder / "edge.yaml").write_text(GOOD.replace("worker_period: 1", "worker_period: 4"))
    result = check(folder / "edge.yaml")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{folder}/edge.yaml:8: warning: worker.worker_period: 4 months may not be sold: the cloud's pages differ; "
        "write 1, 2, 3, 6 or 12",
        "1 policy in 1 file can be used; 1 warning",
    ]


def test_each_folder_is_judged_by_itself(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "edge.yaml").write_text(GOOD)
    result = check(folder, other / "edge.yaml", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{tmp_path}/nowhere: does not exist; name a policy file or a folder",
        "2 policies in 2 files can be used; 1 error",
    ]


def test_problems_for_programs(folder: Path) -> None:
    (folder / "bad.yaml").write_text("cluster_id: C2\n")
    result = check(folder, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["v"], found["ok"], found["policies"]) == (1, 1, False, ["edge"])
    assert {problem["file"] for problem in found["problems"]} == {f"{folder}/bad.yaml"}
    assert found["problems"][0].keys() >= {"line", "field", "what", "mend", "severity"}


def test_print_shows_every_value_and_where_it_is_from(folder: Path) -> None:
    (folder / "_shared.yaml").write_text("defaults:\n  cooldown: 20m\nbudgets:\n  team: {workers: 7, per: 7d}\n")
    (folder / "edge.yaml").write_text(GOOD.replace("[{workers: 10, per: 24h}]", "[{shared: team}]"))
    (folder / "site.yaml").write_text(GOOD.replace(f"cluster_id: {CLUSTER_ID}", MANY + "cluster_id: ${cluster}"))
    result = check(folder, "--print")
    assert result.exit_code == 0
    assert result.stderr == "3 policies in 2 files can be used; no problems\n"
    documents = result.stdout.split("---\n")
    assert [document.splitlines()[0] for document in documents] == ["# edge", "# site-a", "# site-b"]
    origins = {
        line.partition(":")[0].strip(" -"): line.partition(" # ")[2]
        for line in documents[0].splitlines()
        if " # " in line
    }
    assert (
        origins.items()
        >= {
            "cluster_id": "edge.yaml:1",
            "query": "edge.yaml:13",
            "evaluate_every": "default",
            "cooldown": "_shared.yaml:2",
            "workers": "_shared.yaml:4",
            "shared": "edge.yaml:19",
            "env": "edge.yaml:10",
        }.items()
    )
    assert "cluster_id: C7" in documents[1]
    assert "# site.yaml:2 (row a)" in documents[1]


def test_what_is_printed_is_the_policy_again(folder: Path, tmp_path: Path) -> None:
    written = YAML(typ="safe").load(check(folder, "--print").stdout)
    again = tmp_path / "again"
    again.mkdir()
    (again / "edge.yaml").write_text(json.dumps(written))
    before, after = load_policies(folder).policies, load_policies(again).policies
    assert [policy.version for policy in after] == [policy.version for policy in before] != []


def test_print_keeps_problems_off_its_output(folder: Path) -> None:
    (folder / "bad.yaml").write_text("cluster_id: C2\n")
    result = check(folder, "--print")
    assert result.exit_code == 1
    assert result.stdout.startswith("# edge\n")
    assert f"{folder}/bad.yaml" in result.stderr


def test_the_schema_is_printed_without_any_settings() -> None:
    result = check("--schema", AUTOSCALER_NONSENSE="1")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "Autoscaler policy"


def test_what_prints_different_things_is_not_given_together(folder: Path) -> None:
    result = check(folder, "--print", "--schema")
    assert (result.exit_code, result.stdout) == (2, "")


# The outside, for explain and check --connect


@dataclass
class Outside:
    """An edge cloud and a Prometheus that the settings name, both on loopback."""

    cloud: SandboxCloud
    prometheus: ReplayedPrometheus
    environ: dict[str, str]
    folder: Path
    runs: list[Result] = field(default_factory=list)

    def __call__(self, *words: str) -> Result:
        result = CliRunner().invoke(main, list(words), env=self.environ)
        self.runs.append(result)
        return result

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*words, "--json").stdout)
        assert found["v"] == 1
        return found


@pytest.fixture
def outside(folder: Path, tmp_path: Path) -> Iterator[Outside]:
    """Ten workers that serve, and 5873 sessions: fifteen workers' load."""
    now = utc_now().timestamp()
    series = {"live_sessions": [(now - 3600 + 15 * n, 5873.0) for n in range(300)]}
    with SandboxCloud() as cloud, ReplayedPrometheus(series) as prometheus:
        cloud.add_cluster(CLUSTER_ID, workers=10)
        ((key_id, key_secret),) = TEST_CREDENTIALS.items()
        environ = {
            "AUTOSCALER_POLICIES": str(folder),
            "AUTOSCALER_LEDGER": f"sqlite:///{tmp_path / 'ledger.db'}",
            "AUTOSCALER_PROMETHEUS_URL": prometheus.url,
            "AUTOSCALER_PROMETHEUS_TIMEOUT": "1s",
            "AUTOSCALER_CLOUD_ENDPOINT": cloud.url,
            "AUTOSCALER_CLOUD_TIMEOUT": "1s",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": key_secret,
            "EDGE_LOGIN_PASSWORD": SECRET,
        }
        outside = Outside(cloud, prometheus, environ, folder)
        yield outside
        assert cloud.orders == []
        assert {request.method for request in cloud.requests} <= {"GET"}
        assert not any(SECRET in run.output or key_secret in run.output for run in outside.runs)


# explain


def test_explain_says_it_in_a_sentence_then_rule_by_rule(outside: Outside, tmp_path: Path) -> None:
    result = outside("explain", "edge")
    assert (result.exit_code, result.stderr) == (0, "")
    sentence, empty, titles, *rest = result.stdout.splitlines()
    assert sentence == 'scale out by 5 at 10: "sessions" wants 15 (5873 at 400 each)'
    assert (empty, titles.split("  ")[0]) == ("", "RULE")
    rules = [line.split()[0] for line in rest[: rest.index("")]]
    assert (rules[0], rules[3], rules[-1], len(rules)) == ("demand", "supply", "freeze", 14)
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in rest[rest.index("") + 1 :] if line}
    assert told["sessions"].startswith("5873 ")
    assert told["supply"] == "10: 10 serving, 0 in flight; 10 paid of at most 40"
    assert told["cluster"] == "C1, running, Edge profile, 10 of 100 nodes"
    assert not (tmp_path / "ledger.db").exists()


def test_a_hold_is_not_a_no_and_says_why(outside: Outside) -> None:
    outside.prometheus.fault = DataFault.EMPTY
    result = outside("explain", "edge")
    assert result.exit_code == 0
    assert result.stdout.startswith('hold at 10: "sessions" has no reading (no_data: ')
    assert "READING   VALUE  AGE  GAP" in result.stdout


def test_explain_knows_what_the_ledger_knows_and_leaves_it_as_it_was(outside: Outside, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = open_ledger(f"sqlite:///{path}", clock=utc_now)
    hour, now = timedelta(hours=1), utc_now()
    ledger.add_override(OverrideKind.FREEZE, ["*"], None, "ana", "derby", now - hour, now + hour)
    ledger.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    result = outside("explain", "edge")
    assert result.exit_code == 0
    assert result.stdout.startswith('blocked at 10: "sessions" wants 15')
    assert "frozen by ana" in result.stdout.splitlines()[0]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_the_setting_makes_every_policy_a_dry_run(outside: Outside) -> None:
    assert "edge (live: purchases are made;" in outside("explain", "edge").stdout
    outside.environ["AUTOSCALER_DRY_RUN"] = "true"
    assert "edge (dry run: purchases are only imagined;" in outside("explain", "edge").stdout


def test_an_explanation_for_programs(outside: Outside) -> None:
    found = outside.json("explain", "edge")
    assert (found["decision"]["outcome"], found["decision"]["add"]) == ("scale_out", 5)
    assert found["facts"]["readings"][0]["load"]["value"] == 5873
    assert len(found["facts"]["capacity"]["workers"]) == 10


def test_explain_takes_a_path_too_and_judges_it_beside_its_folder(outside: Outside, tmp_path: Path) -> None:
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    (drafts / "_shared.yaml").write_text("defaults:\n  cooldown: 20m\n")
    (drafts / "edge.yaml").write_text(GOOD.replace("load_per_worker: 400", "load_per_worker: 800"))
    (drafts / "broken.yaml").write_text("nothing: here\n")
    result = outside("explain", str(drafts / "edge.yaml"))
    assert result.exit_code == 0
    assert result.stdout.startswith('hold at 10: "sessions" wants 8 (5873 at 800 each)')


@pytest.mark.parametrize(
    ("named", "status", "says"),
    [
        pytest.param("egde", 2, "there is no policy egde; did you mean edge?", id="a slip"),
        pytest.param("zzz", 2, "there is no policy zzz; see `autoscaler check --print`", id="nothing like it"),
        pytest.param("broken", 1, "broken.yaml:1: nothing: ", id="one whose file has errors"),
        pytest.param("policies/none.yaml", 1, "none.yaml: does not exist", id="a file that is not there"),
        pytest.param("policies/broken.yaml", 1, "broken.yaml:1: nothing: ", id="a file with errors"),
        pytest.param("policies/site.yaml", 2, "makes 2 policies, site-a, site-b: name one", id="a file of rows"),
    ],
)
def test_a_policy_that_cannot_be_explained(
    named: str, status: int, says: str, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outside.folder.parent)
    (outside.folder / "broken.yaml").write_text("nothing: here\n")
    text = GOOD.replace(f"cluster_id: {CLUSTER_ID}", MANY + "cluster_id: ${cluster}")
    (outside.folder / "site.yaml").write_text(text)
    result = outside("explain", named)
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr


@pytest.mark.parametrize("words", [[], ["edge", "--decision", "1"]], ids=["nothing named", "a policy and a decision"])
def test_explain_wants_one_thing_to_explain(words: list[str], outside: Outside) -> None:
    assert outside("explain", *words).exit_code == 2


# check --connect


def test_connect_finds_everything_in_order(outside: Outside) -> None:
    result = outside("check", "--connect")
    assert result.exit_code == 0
    shown = [line.split() for line in result.stdout.splitlines() if line.startswith("ok")]
    assert shown[0][:4] == ["ok", "default", "1", "5873"]
    assert shown[0][-1] == "sum(live_sessions)"
    assert " ".join(shown[1]) == f"ok {CLUSTER_ID} an edge cluster, running, 10 nodes, 10 workers, node quota 100"
    assert " ".join(shown[2]).startswith("ok environment variable EDGE_LOGIN_PASSWORD is there")


def test_connect_asks_once_what_several_policies_ask(outside: Outside) -> None:
    (outside.folder / "twin.yaml").write_text(GOOD.replace("ens.sn1.tiny", "ens.sn1.large"))
    found = outside.json("check", "--connect")["connections"]
    assert [(each["kind"], each["policies"]) for each in found] == [
        ("query", ["edge", "twin"]),
        ("cluster", ["edge", "twin"]),
        ("password", ["edge", "twin"]),
    ]


Arrange = Callable[[Outside], Any]


def rewrite(old: str, new: str) -> Arrange:
    """A change of the policy."""
    return lambda outside: (outside.folder / "edge.yaml").write_text(GOOD.replace(old, new))


def environ(**variables: str) -> Arrange:
    return lambda outside: outside.environ.update(variables)


@pytest.mark.parametrize(
    ("arrange", "status", "kind", "says"),
    [
        pytest.param(rewrite("live_sessions", "live_sesions"), 1, "query", "no_data", id="a metric that is not there"),
        pytest.param(
            lambda outside: setattr(outside.prometheus, "fault", DataFault.NOT_A_NUMBER),
            1,
            "query",
            "not_a_number",
            id="NaN",
        ),
        pytest.param(
            environ(AUTOSCALER_PROMETHEUS_URL="http://127.0.0.1:9"), 3, "query", "unreachable", id="no Prometheus"
        ),
        pytest.param(rewrite("cluster_id: C1", "cluster_id: C2"), 1, "cluster", "not found", id="an unknown cluster"),
        pytest.param(
            lambda outside: outside.cloud.set_cluster(CLUSTER_ID, profile="Default"),
            1,
            "cluster",
            "its profile is Default, not Edge",
            id="not an edge cluster",
        ),
        pytest.param(
            lambda outside: outside.cloud.set_cluster(CLUSTER_ID, state="scaling"),
            0,
            "cluster",
            "scaling",
            id="a cluster that is busy now",
        ),
        pytest.param(
            environ(ALIBABA_CLOUD_ACCESS_KEY_SECRET="wrong"), 3, "cluster", "unauthorized", id="a wrong credential"
        ),
        pytest.param(
            environ(AUTOSCALER_CLOUD_ENDPOINT="http://127.0.0.1:9"), 3, "cluster", "unreachable", id="no cloud"
        ),
        pytest.param(
            environ(EDGE_LOGIN_PASSWORD="all-lower-case"), 1, "password", "fewer than three", id="a password too plain"
        ),
        pytest.param(
            rewrite("EDGE_LOGIN_PASSWORD", "EDGE_NO_SUCH"), 1, "password", "EDGE_NO_SUCH is not set", id="no password"
        ),
    ],
)
def test_connect_says_whose_fault_it_is(arrange: Arrange, status: int, kind: str, says: str, outside: Outside) -> None:
    arrange(outside)
    result = outside("check", "--connect", "--json")
    found = [each for each in json.loads(result.stdout)["connections"] if each["kind"] == kind]
    assert (result.exit_code, [(each["status"], each["ok"]) for each in found]) == (status, [(status, status == 0)])
    assert says in found[0]["says"]
    assert all(each["ok"] for each in json.loads(result.stdout)["connections"] if each["kind"] != kind)
    assert says in outside("check", "--connect").stdout


def test_connect_tells_the_outside_by_its_status_though_a_policy_is_wrong_too(outside: Outside) -> None:
    (outside.folder / "broken.yaml").write_text("nothing: here\n")
    assert outside("check", "--connect").exit_code == 1
    outside.environ["AUTOSCALER_PROMETHEUS_URL"] = "http://127.0.0.1:9"
    assert outside("check", "--connect").exit_code == 3
