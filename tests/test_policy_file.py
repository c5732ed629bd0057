"""Policy files: every problem of every file at once, where it was written, and what a folder comes to."""

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from autoscaler.policy import Policy, SecretReference
from autoscaler.policy.files import Loaded, OriginKind, Severity, expanded, load_policies
from autoscaler.policy.schema import json_schema

EXAMPLES = Path(__file__).parent.parent / "policies"
SECRET = "Hello1234!"

WORKER = """\
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: cn-beijing-telecom
  worker_image_id: m-1
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {env: EDGE_LOGIN_PASSWORD}
"""
LIMITS = """\
limits:
  minimum: 1
  maximum: 40
  per_action: 5
  budgets: [{workers: 10, per: 24h}]
"""
POLICY = f"cluster_id: C1\n{WORKER}{LIMITS}"  # 14 lines, without a problem

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Writes files into a folder and loads it: ``load(edge="…")`` is edge.yaml."""

    def write_and_load(files: Mapping[str, str] | None = None, /, **named: str) -> Loaded:
        for name, text in {**(files or {}), **named}.items():
            (tmp_path / (name if "." in name else f"{name}.yaml")).write_text(text)
        monkeypatch.chdir(tmp_path)
        return load_policies(".")

    return write_and_load


def said(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


def test_a_good_file_is_a_policy(load: Load) -> None:
    loaded = load({"edge-1.yaml": POLICY})
    assert loaded.ok
    assert said(loaded) == []
    (policy,) = loaded.policies
    assert (policy.name, policy.cluster_id, policy.limits.maximum) == ("edge-1", "C1", 40)
    assert loaded.policies_by_file == {"edge-1.yaml": (policy,)}


def test_floats_keep_their_decimal_text(load: Load) -> None:
    checks = "checks: [{name: a, query: sum(x), strategy: setpoint, target: 0.1000000000000000000000001}]\n"
    (policy,) = load(edge=POLICY + checks).policies
    check = policy.checks[0]
    assert check.strategy == "setpoint"
    assert check.target == Fraction("0.1000000000000000000000001")


# One problem each: what is put after (or instead of) the good policy's lines, and the problem in full.
PROBLEMS = {
    "an unknown key, with the nearest": (
        POLICY + "cooldwn: 5m\n",
        "edge.yaml:15: cooldwn: is not a known key; write cooldown, or remove it",
    ),
    "a key at the wrong level": (
        POLICY + "maximum: 5\n",
        "edge.yaml:15: maximum: is not a known key; move it under limits",
    ),
    "a key twice": (
        POLICY + "cluster_id: C2\n",
        "edge.yaml:15: cluster_id: is there twice, first on line 1; keep one of them",
    ),
    "a missing key": (
        WORKER + LIMITS,
        "edge.yaml:1: cluster_id: is missing; add it, like cluster_id: Cccfd68c474454665ace07efce924ab12",
    ),
    "a missing key further in": (
        POLICY.replace("  maximum: 40\n", ""),
        "edge.yaml:10: limits.maximum: is missing; add it, like maximum: 40",
    ),
    "a key without a value": (
        POLICY + "labels:\n",
        "edge.yaml:15: labels: has no value; give it one, or remove the line",
    ),
    "a required key without a value is said once": (
        POLICY.replace("cluster_id: C1", "cluster_id:"),
        "edge.yaml:1: cluster_id: has no value; give it one, or remove the line",
    ),
    "max_age without a value does not switch it off": (
        POLICY + "checks: [{name: a, query: sum(x), strategy: per_worker, load_per_worker: 1, max_age: }]\n",
        "edge.yaml:15: checks[0].max_age: has no value; give it one, or remove the line",
    ),
    "a quoted flag": (
        POLICY + 'dry_run: "false"\n',
        "edge.yaml:15: dry_run: 'false' is not true or false; write true or false, without quotes",
    ),
    "a flag of YAML 1.1": (
        POLICY + "dry_run: no\n",
        "edge.yaml:15: dry_run: 'no' is not true or false; write true or false, without quotes",
    ),
    "a number where text belongs": (
        POLICY + "labels: {team: 7}\n",
        "edge.yaml:15: labels.team: 7 is not a text; put it in quotes",
    ),
    "a list where a map belongs": (
        POLICY + "capacity: [a]\n",
        "edge.yaml:15: capacity: a list is not a map; write key: value pairs under it",
    ),
    "a map where a list belongs": (
        POLICY + "checks: {a: 1}\n",
        "edge.yaml:15: checks: a map is not a list; write its items below it, each after '- '",
    ),
    "a float for a count": (
        POLICY.replace("maximum: 40", "maximum: 40.0"),
        "edge.yaml:12: limits.maximum: 40.0 is not a whole number; write a whole number, without quotes",
    ),
    "maximum below minimum": (
        POLICY.replace("minimum: 1", "minimum: 50"),
        "edge.yaml:12: limits.maximum: 40 is below minimum 50; raise limits.maximum, or lower limits.minimum",
    ),
    "a check without a strategy": (
        POLICY + "checks: [{name: a, query: sum(x)}]\n",
        "edge.yaml:15: checks[0]: has no strategy; add strategy: setpoint or per_worker or steps or schedule",
    ),
    "a check of an unknown strategy": (
        POLICY + "checks: [{name: a, query: sum(x), strategy: per_wroker}]\n",
        "edge.yaml:15: checks[0].strategy: 'per_wroker' is not one of setpoint, per_worker, steps, schedule;"
        " write per_worker",
    ),
    "over, which is only setpoint's": (
        POLICY
        + "checks:\n  - {name: a, query: sum(x), strategy: per_worker, load_per_worker: 1,\n     over: count(x)}\n",
        "edge.yaml:17: checks[0].over: is not a known key; remove it; it goes with strategy setpoint",
    ),
    "required on a schedule": (
        POLICY + "checks: [{name: a, strategy: schedule, required: true,"
        " windows: [{cron: 0 18 * * *, lasts: 6h, workers: 1, lead: 1h}]}]\n",
        "edge.yaml:15: checks[0].required: is not a known key; remove it;"
        " it goes with strategy setpoint or per_worker or steps",
    ),
    "a step that does not rise": (
        POLICY + "checks:\n  - name: a\n    query: sum(x)\n    strategy: steps\n    steps:\n"
        "      - {at: 5, add: 1}\n      - {at: 5, add: 2}\n",
        "edge.yaml:21: checks[0].steps[1].at: is not above the step before; order the steps by rising at",
    ),
    "a query that is no PromQL": (
        POLICY + "capacity:\n  query: sum(x\n",
        "edge.yaml:16: capacity.query: is not PromQL: unclosed left parenthesis;"
        " write a PromQL expression that gives one number, like sum(live_sessions)",
    ),
    "@ with max_age, at the query": (
        POLICY + "checks:\n  - {name: a, strategy: per_worker, load_per_worker: 1,\n     query: sum(x @ end())}\n",
        "edge.yaml:17: checks[0].query: is pinned to a time by @, so the age of its reading cannot be known;"
        " take the @ out, or set max_age: none",
    ),
    "a money budget without a price": (
        POLICY.replace("{workers: 10, per: 24h}", "{money: 10, per: 24h}"),
        "edge.yaml:14: limits.budgets[0]: limits money, and the policy names no price;"
        " add price_per_worker_month and currency",
    ),
    "a window shorter than the period": (
        POLICY + "stabilization_window: 10s\n",
        "edge.yaml:15: stabilization_window: 10s is shorter than evaluate_every, 30s; write 0s, or 30s or more",
    ),
    "count, which is ours": (
        POLICY.replace("worker:\n", "worker:\n  count: 3\n"),
        "edge.yaml:3: worker.count: is decided by the autoscaler; remove it; limits.per_action bounds a purchase",
    ),
    "a name, which is the file's": (
        "name: other\n" + POLICY,
        "edge.yaml:1: name: is not a key of a policy file; remove it; the file's name, without .yaml, is the policy's",
    ),
    "an unknown server": (
        POLICY + "prometheus: nowhere\n",
        "edge.yaml:15: prometheus: 'nowhere' is not a known server; write one of default, or add it to _shared.yaml",
    ),
    "an unknown shared budget": (
        POLICY.replace("{workers: 10, per: 24h}", "{shared: team}"),
        "edge.yaml:14: limits.budgets[0].shared: 'team' is not a shared budget;"
        " add it to _shared.yaml, which has no budget so far",
    ),
    "shared beside numbers": (
        POLICY.replace("{workers: 10, per: 24h}", "{shared: team, workers: 3}"),
        "edge.yaml:14: limits.budgets[0].shared: stands beside numbers of its own;"
        " keep shared alone, or the numbers alone",
    ),
    "a placeholder without rows": (
        POLICY + "description: ${site}\n",
        "edge.yaml:15: description: holds ${…}, and nothing fills it in;"
        " write the value, or give the file rows by each",
    ),
    "a row without a name": (
        POLICY + "each: [{site: a}]\n",
        "edge.yaml:15: each[0].name: is missing; give each row a name of its own",
    ),
    "a row whose name ends no policy's": (
        POLICY + "each: [{name: A b}]\n",
        "edge.yaml:15: each[0].name: 'A b' cannot end a policy's name;"
        " use few of a-z, 0-9, '-' and '.', with a letter or digit first and last",
    ),
    "no rows": (
        POLICY + "each: []\n",
        "edge.yaml:15: each: is not a list of rows; write - {name: …, key: value} for each policy",
    ),
    "a row with a list in it": (
        POLICY + "each: [{name: a, sites: [b]}]\n",
        "edge.yaml:15: each[0].sites: a list cannot fill a text; give rows single values",
    ),
    "a key that no row has": (
        POLICY.replace("C1", "${clutser}") + "each: [{name: a, cluster: C1}]\n",
        "edge.yaml:1: cluster_id: names ${clutser} that row a does not have;"
        " use one of name, cluster, or add it to every row",
    ),
    "a merge key": (
        POLICY + "<<: {a: 1}\n",
        "edge.yaml:15: <<: is a merge key, which YAML 1.2 does not have; use defaults in _shared.yaml, or each",
    ),
    "a tag": (
        POLICY + "description: !!binary aGVsbG8=\n",
        "edge.yaml:15: description: has a tag (!), which has no meaning here; put the text in quotes",
    ),
    "a tab": (
        POLICY + "capacity:\n\tquery: sum(x)\n",
        "edge.yaml:16: is indented by a tab; indent with spaces",
    ),
    "a second document": (
        POLICY + "---\na: 1\n",
        "edge.yaml:15: begins a second document; keep one document to a file",
    ),
    "a list instead of a map": ("- a\n", "edge.yaml:1: a list is not a map; write key: value pairs"),
    "nothing": ("", "edge.yaml: is empty; describe a policy in it, or remove it"),
    "a control character": (POLICY + "description: a\x07b\n", "edge.yaml:15: holds a control character; remove it"),
    "an alias that leads round": (
        "labels: &a {b: *a}\n",
        "edge.yaml: stands for too many values by its aliases; write fewer aliases",
    ),
    "brackets without end": ("[" * 20_000, "edge.yaml: is nested too deeply; write it flatter"),
    "aliases for a billion values": (
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdefghi")),
        "edge.yaml: stands for too many values by its aliases; write fewer aliases",
    ),
    "a megabyte and more": (
        "# " + "x" * 1024 * 1024,
        "edge.yaml: is larger than 1024 KiB; split it into several files",
    ),
}


@pytest.mark.parametrize(("text", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_says_what_is_wrong_where_and_the_mend(load: Load, text: str, problem: str) -> None:
    loaded = load(edge=text)
    assert said(loaded) == [problem]
    assert not loaded.ok
    assert loaded.policies == ()
    assert loaded.policies_by_file == {}


def test_every_problem_of_every_file_is_said_at_once(load: Load) -> None:
    loaded = load(
        a=POLICY.replace("minimum: 1", "minimum: 50") + "cooldown: 5\nstabilization_window: 1s\nfoo: 1\n",
        b=POLICY.replace("worker_period: 1", "worker_period: 10") + "provision_timeout: 1m\nprometheus: nowhere\n",
        c="x: [",
    )
    assert [(problem.file, problem.line, problem.field) for problem in loaded.problems] == [
        ("a.yaml", 12, "limits.maximum"),
        ("a.yaml", 15, "cooldown"),
        ("a.yaml", 16, "stabilization_window"),
        ("a.yaml", 17, "foo"),
        ("b.yaml", 7, "worker.worker_period"),
        ("b.yaml", 16, "prometheus"),
        ("c.yaml", 1, ""),
    ]


def test_names_the_column(load: Load) -> None:
    (problem,) = load(edge=POLICY.replace("workers: 10", "workers: 0")).problems
    assert (problem.line, problem.column) == (14, 14)


BAD_NAMES = ["Edge.yaml", "edge beijing.yaml", "-edge.yaml", "edge-.yaml", "édge.yaml"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_file_has_to_be_named_like_a_policy(load: Load, name: str) -> None:
    (problem,) = load({name: POLICY}).problems
    assert problem.file == name
    assert "is not a policy name" in problem.what


def test_what_begins_with_an_underscore_or_lies_deeper_is_no_policy(load: Load, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "edge.yaml").write_text("bad: [")
    (tmp_path / "folder.yaml").mkdir()
    loaded = load({"_draft.yaml": "bad: [", ".hidden.yaml": "bad: [", "README.md": "bad: [", "edge.yml": POLICY})
    assert said(loaded) == []
    assert [policy.name for policy in loaded.policies] == ["edge"]


def test_bytes_that_are_not_utf8(load: Load, tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_bytes(POLICY.encode() + b"description: \xff\n")
    assert said(load()) == ["edge.yaml:15: is not UTF-8; save the file as UTF-8"]


def test_a_missing_folder_is_an_error_and_an_empty_one_a_warning(tmp_path: Path) -> None:
    missing = load_policies(tmp_path / "nowhere")
    assert (missing.ok, missing.problems[0].what) == (False, "does not exist")
    empty = load_policies(tmp_path)
    assert (empty.ok, empty.problems[0].what) == (True, "holds no policy files")


def test_files_may_be_named_one_by_one_with_the_shared_file_beside_them(load: Load, tmp_path: Path) -> None:
    load({"_shared.yaml": "defaults: {cooldown: 7m}", "a.yaml": POLICY, "b.yaml": "bad: ["})
    loaded = load_policies([tmp_path / "_shared.yaml", tmp_path / "a.yaml"])
    assert loaded.ok
    assert [(policy.name, policy.cooldown) for policy in loaded.policies] == [("a", timedelta(minutes=7))]


def test_files_of_two_folders_are_not_loaded_together(load: Load, tmp_path: Path) -> None:
    load(a=POLICY)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.yaml").write_text(POLICY)
    loaded = load_policies([tmp_path / "a.yaml", tmp_path / "other"])
    assert not loaded.ok
    assert loaded.policies == ()
    assert "not in the same folder" in loaded.problems[0].what


# Secrets

TYPED_SECRETS = {
    "as the value": f"worker: {{login_password: {SECRET}}}",
    "as a number": "worker: {login_password: 1234567890123}",
    "as a key": f"worker: {{login_password: {{{SECRET}}}}}",
    "as a variable's name": f'worker: {{login_password: {{env: "{SECRET}"}}}}',
    "beside a variable's name": f"worker: {{login_password: {{env: A, value: {SECRET}}}}}",
    "as a list": f"worker: {{login_password: [{SECRET}]}}",
    "as an alias": f"worker: {{login_password: *{SECRET}}}",
    "as an anchor": f"worker:\n  login_password: &{SECRET}\n",
    "as a tag": f"worker:\n  login_password: !{SECRET}\n",
    "as a local tag": f"worker:\n  login_password: !{SECRET[:-1]} x\n",
    "with a quote that does not close": f'worker:\n  login_password: "{SECRET}\n',
    "with an escape": f'worker:\n  login_password: "{SECRET}\\q"\n',
    "after an at sign": f"worker:\n  login_password: @{SECRET}\n",
    "with a placeholder's form": f"each: [{{name: a}}]\nworker: {{login_password: 'x${{{SECRET}}}'}}",
    "by a row": f"each: [{{name: a, secret: {SECRET}}}]\nworker: {{login_password: '${{secret}}'}}",
    "under a misspelt key": f"worker: {{login_pasword: {SECRET}}}",
    "at the wrong level": f"login_password: {SECRET}",
    "twice": f"worker: {{login_password: {{{SECRET}: 1, {SECRET}: 2}}}}",
}


@pytest.mark.parametrize("text", TYPED_SECRETS.values(), ids=TYPED_SECRETS)
def test_a_secret_that_was_typed_is_not_repeated(load: Load, text: str, recwarn: pytest.WarningsRecorder) -> None:
    loaded = load(edge=text)
    assert not loaded.ok
    shown = repr(loaded) + "".join(said(loaded)) + "".join(str(warning.message) for warning in recwarn)
    assert "Hello123" not in shown
    assert "1234567890123" not in shown


def test_a_typed_password_gets_its_mend(load: Load) -> None:
    loaded = load(edge=POLICY.replace("{env: EDGE_LOGIN_PASSWORD}", SECRET))
    assert said(loaded) == [
        "edge.yaml:9: worker.login_password: is not a reference to a secret;"
        " write {env: NAME} or {file: /whole/path}; never the password itself"
    ]


def test_a_typed_token_in_the_shared_file_is_not_repeated(load: Load) -> None:
    shared = f"prometheus:\n  main:\n    url: http://host\n    token: {SECRET}\n    headers: {{Cookie: {SECRET}}}\n"
    loaded = load({"_shared.yaml": shared, "edge.yaml": POLICY})
    assert [(problem.line, problem.field) for problem in loaded.problems] == [
        (4, "prometheus.main.token"),
        (5, "prometheus.main.headers"),
    ]
    assert SECRET not in repr(loaded) + "".join(said(loaded))


# _shared.yaml


def test_defaults_lie_under_every_policy_maps_merge_and_lists_replace(load: Load) -> None:
    shared = """\
defaults:
  cooldown: 7m
  labels: {team: live, tier: one}
  worker: {login_password: {env: SHARED}, worker_data_disk_size: 40}
  limits: {per_action: 9, budgets: [{workers: 99, per: 1d}]}
"""
    own = POLICY + "labels: {tier: two}\n"
    (policy,) = load(
        {"_shared.yaml": shared, "edge.yaml": own.replace("{env: EDGE_LOGIN_PASSWORD}", "{file: /f}")}
    ).policies
    assert policy.cooldown == timedelta(minutes=7)
    assert policy.labels == {"team": "live", "tier": "two"}
    assert policy.worker.worker_data_disk_size == 40
    assert policy.worker.login_password == SecretReference(file="/f")
    assert policy.limits.per_action == 5
    assert [budget.workers for budget in policy.limits.budgets] == [10]


def test_a_problem_of_the_defaults_is_said_there_and_once(load: Load) -> None:
    shared = "defaults:\n  cooldwn: 5m\n  warm_up: 5\n"
    loaded = load({"_shared.yaml": shared, "a.yaml": POLICY, "b.yaml": POLICY.replace("C1", "C2")})
    assert said(loaded) == [
        "_shared.yaml:2: defaults.cooldwn: is not a known key; write cooldown, or remove it",
        "_shared.yaml:3: defaults.warm_up: 5 has no unit; write 5s, 5m or 5h",
    ]
    assert loaded.policies == ()


def test_shared_budgets_are_filled_in_and_keep_their_name(load: Load) -> None:
    budgets = "budgets:\n  team: {money: 5000, per: 30d}\n"
    own = (
        POLICY.replace("{workers: 10, per: 24h}", "{shared: team}") + "price_per_worker_month: 180.00\ncurrency: CNY\n"
    )
    loaded = load({"_shared.yaml": budgets, "edge.yaml": own})
    assert said(loaded) == []
    (budget,) = loaded.policies[0].limits.budgets
    assert (budget.money, budget.per, budget.shared, budget.workers) == (5000, timedelta(days=30), "team", None)
    assert loaded.shared.budgets["team"].money == 5000


def test_servers_have_names(load: Load) -> None:
    shared = "prometheus:\n  main: {url: 'https://host/prom', token: {file: /run/token}, headers: {X-Scope-OrgID: a}}\n"
    loaded = load({"_shared.yaml": shared, "edge.yaml": POLICY + "prometheus: main\n"})
    assert said(loaded) == []
    assert loaded.policies[0].prometheus == "main"
    assert loaded.shared.prometheus["main"].token == SecretReference(file="/run/token")


SHARED_PROBLEMS = {
    "an unknown part": (
        "default: {cooldown: 5m}\n",
        ["_shared.yaml:1: default: is not a known key; write defaults, or remove it"],
    ),
    "a part of the wrong form": (
        "budgets: [a]\n",
        ["_shared.yaml:1: budgets: a list is not a map; write key: value pairs under it"],
    ),
    "a broken budget is said once": (
        "budgets: {team: {workers: 3}}\n",
        ["_shared.yaml:1: budgets.team: has no window; add per, like per: 24h"],
    ),
    "a budget that is shared itself": (
        "budgets: {team: {shared: other}}\n",
        ["_shared.yaml:1: budgets.team.shared: is not for a shared budget itself; remove it"],
    ),
    "the settings' own server": (
        "prometheus: {default: {url: http://host}}\nbudgets: {team: {workers: 3, per: 1d}}\n",
        [
            "_shared.yaml:1: prometheus.default: is described by the settings;"
            " give it another name; the settings AUTOSCALER_PROMETHEUS_… describe default"
        ],
    ),
    "a server without an address": (
        "prometheus: {main: {headers: {}}}\nbudgets: {team: {workers: 3, per: 1d}}\n",
        [
            "_shared.yaml:1: prometheus.main.url: is missing; add it, like url: https://prometheus.example.com",
        ],
    ),
    "a misspelt key of a server": (
        "prometheus: {main: {url: http://host, usrname: a}}\nbudgets: {team: {workers: 3, per: 1d}}\n",
        ["_shared.yaml:1: prometheus.main.usrname: is not a known key; write username, or remove it"],
    ),
    "a default name": (
        "defaults: {name: a}\nbudgets: {team: {workers: 3, per: 1d}}\n",
        ["_shared.yaml:1: defaults.name: cannot be a default; remove it"],
    ),
    "not YAML": (
        "x: [\n",
        ["_shared.yaml:2: opens a bracket that is never closed; close it"],
    ),
}


@pytest.mark.parametrize(("shared", "problems"), SHARED_PROBLEMS.values(), ids=SHARED_PROBLEMS)
def test_a_problem_of_the_shared_file_stops_every_policy(load: Load, shared: str, problems: list[str]) -> None:
    loaded = load({"_shared.yaml": shared, "edge.yaml": POLICY})
    assert [line for line in said(loaded) if line.startswith("_shared")] == problems
    assert loaded.policies == ()


def test_a_default_that_a_policy_replaces_does_it_no_harm(load: Load) -> None:
    loaded = load({"_shared.yaml": "defaults: {cooldown: 5}", "a.yaml": POLICY + "cooldown: 5m\n"})
    assert loaded.ok
    assert len(loaded.policies) == 1


# each

SITES = """\
each:
  - {name: a, cluster: C1, maximum: 12, load: 0.5}
  - {name: b, cluster: C2, maximum: 20, load: 400}
description: Site ${name} on ${cluster}
cluster_id: ${cluster}
checks:
  - {name: load, strategy: per_worker, query: 'sum(x{site="${name}"}) / ${load}', load_per_worker: "${load}"}
limits:
  minimum: 1
  maximum: ${maximum}
  per_action: 5
  budgets: [{workers: 10, per: 24h}]
"""


def test_each_row_is_a_policy_with_its_values_in_place(load: Load) -> None:
    loaded = load(edge=SITES + WORKER)
    assert said(loaded) == []
    first, second = loaded.policies
    assert (first.name, first.cluster_id, first.limits.maximum) == ("edge-a", "C1", 12)
    assert first.description == "Site a on C1"
    check = first.checks[0]
    assert check.strategy == "per_worker"
    assert (check.query, check.load_per_worker) == ('sum(x{site="a"}) / 0.5', Fraction(1, 2))
    assert (second.name, second.limits.maximum) == ("edge-b", 20)
    assert loaded.policies_by_file == {"edge.yaml": (first, second)}


def test_a_row_with_a_wrong_value_is_said_at_the_row_and_stops_the_file(load: Load) -> None:
    loaded = load(edge=(SITES + WORKER).replace("maximum: 20", "maximum: many"))
    assert said(loaded) == [
        "edge.yaml:3: limits.maximum: 'many' is not a whole number (row b); write a whole number, without quotes"
    ]
    assert loaded.policies == ()


def test_a_problem_of_the_template_is_said_once_for_all_rows(load: Load) -> None:
    loaded = load(edge=SITES + WORKER + "cooldwn: 1m\n")
    assert [problem.field for problem in loaded.problems] == ["cooldwn"]


def test_two_rows_of_one_name(load: Load) -> None:
    loaded = load(edge=(SITES + WORKER).replace("name: b", "name: a"))
    assert said(loaded) == ["edge.yaml:3: each[1]: makes policy 'edge-a' a second time, after this file; rename one"]


def test_a_row_and_a_file_of_one_name_stop_both_files(load: Load) -> None:
    loaded = load(
        {"edge.yaml": SITES + WORKER, "edge-a.yaml": POLICY.replace("C1", "C9"), "z.yaml": POLICY.replace("C1", "C8")}
    )
    assert said(loaded) == ["edge.yaml:2: each[0]: makes policy 'edge-a' a second time, after edge-a.yaml; rename one"]
    assert list(loaded.policies_by_file) == ["z.yaml"]


def test_a_thousand_rows_take_seconds(load: Load) -> None:
    rows = "".join(f"  - {{name: s{n}, cluster: C{n}, maximum: {n + 5}, load: 4}}\n" for n in range(1000))
    text = re.sub(r"each:\n(  - .*\n)+", f"each:\n{rows}", SITES, count=1) + WORKER
    begun = time.perf_counter()
    loaded = load(edge=text)
    assert len(loaded.policies) == 1000
    assert time.perf_counter() - begun < 10  # half a second on an idle core


# Policies beside each other

PAIRS: dict[str, tuple[dict[str, str], list[str]]] = {
    "the same workers twice": (
        {"a": POLICY, "b": POLICY},
        [
            "a.yaml:4: worker.ens_region_id: has cluster, instance type and ENS region in common with b;"
            " make one policy of them, or buy another instance type",
            "b.yaml:4: worker.ens_region_id: has cluster, instance type and ENS region in common with a;"
            " make one policy of them, or buy another instance type",
        ],
    ),
    "two regions of one cluster and type, without a query": (
        {"a": POLICY, "b": POLICY.replace("beijing", "hangzhou") + "capacity: {query: sum(x)}\n"},
        [
            "a.yaml:1: capacity: needs a query: cluster and instance type are those of b too,"
            " and the node list does not tell their workers apart;"
            " add capacity.query, counting this policy's serving workers"
        ],
    ),
    "two regions of one cluster and type, each with a query": (
        {
            "a": POLICY + "capacity: {query: sum(x)}\n",
            "b": POLICY.replace("beijing", "hangzhou") + "capacity: {query: sum(y)}\n",
        },
        [],
    ),
    "two types of one cluster": ({"a": POLICY, "b": POLICY.replace("tiny", "small")}, []),
    "two clusters": ({"a": POLICY, "b": POLICY.replace("C1", "C2")}, []),
}


@pytest.mark.parametrize(("files", "problems"), PAIRS.values(), ids=PAIRS)
def test_policies_beside_each_other(load: Load, files: dict[str, str], problems: list[str]) -> None:
    assert said(load(files)) == problems


def test_a_clash_leaves_the_others_alone(load: Load) -> None:
    loaded = load(a=POLICY, b=POLICY, c=POLICY.replace("C1", "C2"))
    assert [policy.name for policy in loaded.policies] == ["c"]


def test_shared_money_has_one_currency(load: Load) -> None:
    budgets = "budgets: {team: {money: 5000, per: 30d}}\n"
    own = POLICY.replace("{workers: 10, per: 24h}", "{shared: team}") + "price_per_worker_month: 1\n"
    mixed = {"_shared.yaml": budgets, "a.yaml": own + "currency: CNY\n"}
    assert load({**mixed, "b.yaml": own.replace("C1", "C2") + "currency: CNY\n"}).ok
    loaded = load({**mixed, "b.yaml": own.replace("C1", "C2") + "currency: USD\n"})
    assert [problem.what for problem in loaded.problems] == [
        "counts money in several currencies: budget 'team' is shared by policies in CNY, USD"
    ] * 2
    assert loaded.policies == ()


# Warnings

WARNINGS: dict[str, tuple[str, list[str]]] = {
    "a live policy without a budget": (
        POLICY.replace("  budgets: [{workers: 10, per: 24h}]\n", "") + "dry_run: false\n",
        ["edge.yaml:10: limits: has no budget, and the policy buys; add budgets: [{workers: 10, per: 24h}]"],
    ),
    "a dry run without a budget": (POLICY.replace("  budgets: [{workers: 10, per: 24h}]\n", ""), []),
    "nothing that could ever buy": (
        POLICY.replace("minimum: 1", "minimum: 0"),
        ["edge.yaml:1: checks: are missing and minimum is 0, so nothing is bought but by hand; add a check"],
    ),
    "a cooldown shorter than the period": (
        POLICY + "evaluate_every: 1m\ncooldown: 59s\n",
        ["edge.yaml:16: cooldown: is shorter than evaluate_every, 1m; write 1m or more"],
    ),
    "a cooldown as long as the period": (POLICY + "evaluate_every: 1m\ncooldown: 1m\n", []),
    "five months": (
        POLICY.replace("worker_period: 1", "worker_period: 5"),
        [
            "edge.yaml:7: worker.worker_period: 5 months may not be sold: the cloud's pages differ;"
            " write 1, 2, 3, 6 or 12"
        ],
    ),
    "queries that may give several series": (
        POLICY
        + "capacity:\n  query: x\nchecks:\n"
        + "  - {name: a, strategy: setpoint, target: 1, query: sum by (y) (x), over: x}\n"
        + "  - {name: b, strategy: setpoint, target: 1, query: sum(x), over: count(x)}\n",
        [
            f"edge.yaml:{line}: {field}: may give several series, which is a gap;"
            " wrap it in sum(), max(), avg() or count(), without by"
            for line, field in ((16, "capacity.query"), (18, "checks[0].query"), (18, "checks[0].over"))
        ],
    ),
    # 12 workers at 5 a purchase: three purchases, 10m apart, and 3m to warm up.
    "a lead shorter than joining takes": (
        POLICY + "checks: [{name: a, strategy: schedule, windows:\n"
        "  [{cron: 0 18 * * *, lasts: 6h, workers: 12, lead: 32m}]}]\n",
        [
            "edge.yaml:16: checks[0].windows[0].lead: 32m is shorter than 12 workers take to join;"
            " write 33m or more, or raise limits.per_action"
        ],
    ),
    "a lead as long as joining takes": (
        POLICY + "checks: [{name: a, strategy: schedule, windows:\n"
        "  [{cron: 0 18 * * *, lasts: 6h, workers: 12, lead: 33m}]}]\n",
        [],
    ),
}


@pytest.mark.parametrize(("text", "warnings"), WARNINGS.values(), ids=WARNINGS)
def test_warns_and_loads(load: Load, text: str, warnings: list[str]) -> None:
    loaded = load(edge=text)
    assert said(loaded) == warnings
    assert {problem.severity for problem in loaded.problems} <= {Severity.WARNING}
    assert loaded.ok
    assert len(loaded.policies) == 1


# What is printed


def test_each_value_knows_where_it_came_from(load: Load) -> None:
    shared = "budgets: {team: {workers: 9, per: 1d}}\ndefaults:\n  cooldown: 7m\n"
    text = (SITES + WORKER).replace("{workers: 10, per: 24h}", "{shared: team}")
    loaded = load({"_shared.yaml": shared, "edge.yaml": text})
    assert {
        path: str(loaded.origin("edge-a", path))
        for path in (
            "cooldown",
            "warm_up",
            "cluster_id",
            "description",
            "limits.maximum",
            "limits.per_action",
            "limits.budgets[0].shared",
            "limits.budgets[0].workers",
            "worker.login_password.env",
        )
    } == {
        "cooldown": "_shared.yaml:3",
        "warm_up": "default",
        "cluster_id": "edge.yaml:2 (row a)",
        "description": "edge.yaml:4 (row a)",
        "limits.maximum": "edge.yaml:2 (row a)",
        "limits.per_action": "edge.yaml:11",
        "limits.budgets[0].shared": "edge.yaml:12",
        "limits.budgets[0].workers": "_shared.yaml:1",
        "worker.login_password.env": "edge.yaml:20",
    }
    assert loaded.origin("edge-a", "cooldown").kind is OriginKind.SHARED
    assert loaded.origin("edge-a", "limits.maximum").kind is OriginKind.ROW


def leaves(form: Any, path: str = "") -> list[str]:
    if isinstance(form, dict):
        return [leaf for key, part in form.items() for leaf in leaves(part, f"{path}.{key}" if path else key)]
    if isinstance(form, list):
        return [leaf for index, part in enumerate(form) for leaf in leaves(part, f"{path}[{index}]")]
    return [path]


def test_the_expanded_form_is_a_policy_file_again_and_names_every_written_value() -> None:
    loaded = load_policies(EXAMPLES)
    for policy in loaded.policies:
        form = expanded(policy)
        assert Policy.model_validate({"name": policy.name, **form}) == policy
        assert set(loaded.origins[policy.name]) <= set(leaves(form))
        assert json.loads(json.dumps(form)) == form


def test_the_examples_are_good_and_buy_nothing() -> None:
    loaded = load_policies(EXAMPLES)
    assert said(loaded) == []
    assert len(loaded.policies_by_file) == 3
    assert all(policy.dry_run for policy in loaded.policies)
    assert any(len(policies) > 1 for policies in loaded.policies_by_file.values())


# The schema


def test_the_schema_knows_every_key_of_the_examples() -> None:
    schema = json_schema()
    keys = set(re.findall(r"^([a-z_]+):", "".join(path.read_text() for path in EXAMPLES.glob("[!_]*.yaml")), re.M))
    assert keys <= schema["properties"].keys()
    assert "name" not in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["each"]["items"]["required"] == ["name"]


def test_the_schema_requires_nothing_that_defaults_can_give() -> None:
    schema = json_schema()
    assert "required" not in schema
    assert "required" not in schema["$defs"]["WorkerSpec"]
    assert schema["$defs"]["Step"]["required"] == ["at"]


def test_the_schema_explains_and_bounds_every_value() -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]
    undescribed = [name for part in parts for name, value in part["properties"].items() if not value.get("description")]
    assert undescribed == []
    maximum = schema["$defs"]["Limits"]["properties"]["maximum"]
    assert {"type": "integer", "minimum": 0, "maximum": 1_000_000} in maximum["anyOf"]
    assert any("pattern" in option for option in maximum["anyOf"])
    assert '"null"' not in json.dumps(schema)
