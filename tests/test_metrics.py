import platform

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler import __version__
from autoscaler.decision import Evaluation, decide
from autoscaler.facts import Facts
from autoscaler.metrics import Dropped, Metrics
from autoscaler.model import GapReason, PurchaseState
from tests import build


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def evaluate(facts: Facts) -> Evaluation:
    return Evaluation(facts, decide(facts))


def test_an_evaluation_is_counted_by_outcome_and_reason(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.evaluated(evaluate(build.facts(load=1200)), 0.02)
    metrics.evaluated(evaluate(build.facts(load=1200)), 0.02)
    labels = {"outcome": "scale_out", "reason": "needed", "dry_run": "false"}
    assert registry.get_sample_value("autoscaler_evaluations_total", labels) == 2
    assert registry.get_sample_value("autoscaler_evaluation_seconds_count") == 2
    assert registry.get_sample_value("autoscaler_evaluation_seconds_bucket", {"le": "0.025"}) == 2
    assert registry.get_sample_value("autoscaler_evaluation_seconds_bucket", {"le": "0.01"}) == 0


def test_a_policy_shows_how_it_stands(registry: CollectorRegistry, metrics: Metrics) -> None:
    workers = (*build.workers(2), *build.warming(1), *build.joining(1))
    metrics.evaluated(evaluate(build.facts(load=2001, capacity=build.capacity(workers))), 0.02)
    edge = {"policy": "edge"}
    assert registry.get_sample_value("autoscaler_workers_ready", edge) == 2
    assert registry.get_sample_value("autoscaler_workers_in_flight", edge) == 2
    assert registry.get_sample_value("autoscaler_workers_wanted", edge) == 6
    assert registry.get_sample_value("autoscaler_last_evaluation_timestamp_seconds", edge) == build.NOW.timestamp()
    outcome = {**edge, "outcome": "scale_out", "dry_run": "false"}
    assert registry.get_sample_value("autoscaler_outcome", outcome) == 1


def test_a_policy_has_one_outcome_at_a_time(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.evaluated(evaluate(build.facts(load=1200)), 0.02)
    metrics.evaluated(evaluate(build.facts(load=1200, overrides=(build.order("freeze"),))), 0.02)
    edge = {"policy": "edge", "dry_run": "false"}
    assert registry.get_sample_value("autoscaler_outcome", {**edge, "outcome": "blocked"}) == 1
    assert registry.get_sample_value("autoscaler_outcome", {**edge, "outcome": "scale_out"}) is None


def test_what_a_gap_hides_is_left_out_and_not_zero(registry: CollectorRegistry, metrics: Metrics) -> None:
    edge = {"policy": "edge"}
    metrics.evaluated(evaluate(build.facts(load=1200, capacity=build.capacity(build.workers(2)))), 0.02)
    blind = build.facts(readings=(build.unread(reason=GapReason.STALE),), capacity=build.gap(GapReason.INCONSISTENT))
    metrics.evaluated(evaluate(blind), 0.02)
    for name in ("ready", "in_flight", "wanted"):
        assert registry.get_sample_value(f"autoscaler_workers_{name}", edge) is None
    assert registry.get_sample_value("autoscaler_last_evaluation_timestamp_seconds", edge) is not None
    assert registry.get_sample_value("autoscaler_gaps_total", {"reason": "stale"}) == 1
    assert registry.get_sample_value("autoscaler_gaps_total", {"reason": "inconsistent"}) == 1


@pytest.mark.parametrize("reason", list(GapReason))
def test_every_gap_is_there_before_it_happens(registry: CollectorRegistry, metrics: Metrics, reason: str) -> None:
    assert registry.get_sample_value("autoscaler_gaps_total", {"reason": reason}) == 0


def test_a_forgotten_policy_is_gone_and_another_stays(registry: CollectorRegistry, metrics: Metrics) -> None:
    for name in ("edge", "other"):
        metrics.evaluated(evaluate(build.facts(build.policy(name=name), load=1200)), 0.02)
    metrics.forget("edge")
    metrics.forget("never-heard-of")
    named = {
        sample.labels["policy"]
        for family in registry.collect()
        for sample in family.samples
        if "policy" in sample.labels
    }
    assert named == {"other"}


def test_only_five_series_carry_the_name_of_a_policy(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.evaluated(evaluate(build.facts(load=1200)), 0.02)
    metrics.purchases_changed([build.purchase()])
    series = [sample for family in registry.collect() for sample in family.samples if "policy" in sample.labels]
    assert len(series) == 5


def test_a_dry_run_says_so_and_its_imagined_workers_are_not_ready(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    dry = build.policy(dry_run=True)
    workers = (*build.workers(2), *build.workers(3, prefix="imagined", imagined=True))
    metrics.evaluated(evaluate(build.facts(dry, load=4000, capacity=build.capacity(workers))), 0.02)
    labels = {"outcome": "scale_out", "reason": "needed", "dry_run": "true"}
    assert registry.get_sample_value("autoscaler_evaluations_total", labels) == 1
    assert registry.get_sample_value("autoscaler_evaluations_total", labels | {"dry_run": "false"}) is None
    assert registry.get_sample_value("autoscaler_workers_ready", {"policy": "edge"}) == 2


def test_purchases_are_told_by_state_and_states_without_any_are_zero(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.purchases_changed([build.purchase(1, "unknown"), build.purchase(2, "fulfilled")])
    counts = {
        state: registry.get_sample_value("autoscaler_purchases", {"state": state, "imagined": "false"})
        for state in PurchaseState
    }
    assert counts == dict.fromkeys(PurchaseState, 0) | {PurchaseState.UNKNOWN: 1, PurchaseState.FULFILLED: 1}


def test_a_purchase_told_again_moves_and_is_not_counted_twice(registry: CollectorRegistry, metrics: Metrics) -> None:
    for state in ("intended", "sending", "sending", "accepted", "accepted"):
        metrics.purchases_changed([build.purchase(1, state, asked=3)])
    assert registry.get_sample_value("autoscaler_purchases", {"state": "sending", "imagined": "false"}) == 0
    assert registry.get_sample_value("autoscaler_purchases", {"state": "accepted", "imagined": "false"}) == 1
    assert registry.get_sample_value("autoscaler_committed_workers") == 3


@pytest.mark.parametrize(
    ("state", "committed", "purchased"),
    [
        pytest.param("intended", 3, 0, id="a budget is reserved with the intent"),
        pytest.param("sending", 3, 0, id="it is on its way"),
        pytest.param("unknown", 3, 0, id="nobody knows: it counts in budgets"),
        pytest.param("accepted", 3, 3, id="the cloud took it"),
        pytest.param("fulfilled", 3, 3, id="all arrived"),
        pytest.param("failed", 3, 3, id="the task failed, and may have been paid"),
        pytest.param("expired", 3, 3, id="it is no longer expected, and was paid"),
        pytest.param("rejected", 0, 0, id="surely nothing was bought"),
        pytest.param("cancelled", 0, 0, id="it was never sent"),
        pytest.param("not_bought", 0, 0, id="a person said so"),
    ],
)
def test_workers_and_money_of_a_purchase(
    registry: CollectorRegistry, metrics: Metrics, state: str, committed: int, purchased: int
) -> None:
    priced = build.policy(price_per_worker_month="180.00", currency="CNY", worker_period=2)
    metrics.purchases_changed([build.purchase(1, state, asked=3, of=priced)])
    assert registry.get_sample_value("autoscaler_committed_workers") == committed
    assert registry.get_sample_value("autoscaler_purchased_workers_total") == purchased
    assert registry.get_sample_value("autoscaler_committed_money", {"currency": "CNY"}) == committed * 180 * 2


def test_currencies_are_not_added_together(registry: CollectorRegistry, metrics: Metrics) -> None:
    for id, currency in enumerate(("CNY", "EUR", "CNY")):
        priced = build.policy(price_per_worker_month="100", currency=currency)
        metrics.purchases_changed([build.purchase(id, asked=1, of=priced)])
    metrics.purchases_changed([build.purchase(9, asked=1)])
    assert registry.get_sample_value("autoscaler_committed_money", {"currency": "CNY"}) == 200
    assert registry.get_sample_value("autoscaler_committed_money", {"currency": "EUR"}) == 100
    assert registry.get_sample_value("autoscaler_committed_money", {"currency": ""}) is None


def test_imagined_purchases_are_in_no_figure_of_real_ones(registry: CollectorRegistry, metrics: Metrics) -> None:
    priced = build.policy(price_per_worker_month="100", currency="CNY")
    metrics.purchases_changed([build.purchase(1, asked=3, of=priced, imagined=True)])
    assert registry.get_sample_value("autoscaler_purchases", {"state": "accepted", "imagined": "true"}) == 1
    assert registry.get_sample_value("autoscaler_purchases", {"state": "accepted", "imagined": "false"}) == 0
    assert registry.get_sample_value("autoscaler_committed_workers") == 0
    assert registry.get_sample_value("autoscaler_purchased_workers_total") == 0
    assert registry.get_sample_value("autoscaler_committed_money", {"currency": "CNY"}) is None


def test_the_daemon_itself(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.policies_loaded(12, 1)
    metrics.beat(build.NOW)
    metrics.run_dropped(Dropped.MISSED)
    build_info = {"version": __version__, "python": platform.python_version()}
    assert registry.get_sample_value("autoscaler_policies") == 12
    assert registry.get_sample_value("autoscaler_policy_problems") == 1
    assert registry.get_sample_value("autoscaler_heartbeat_timestamp_seconds") == build.NOW.timestamp()
    assert registry.get_sample_value("autoscaler_scheduler_dropped_runs_total", {"cause": "missed"}) == 1
    assert registry.get_sample_value("autoscaler_scheduler_dropped_runs_total", {"cause": "max_instances"}) == 0
    assert registry.get_sample_value("autoscaler_build_info", build_info) == 1


def test_the_exposition_parses_and_every_figure_is_named_and_explained(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.evaluated(evaluate(build.facts(load=1200)), 0.02)
    metrics.purchases_changed([build.purchase()])
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert all(family.name.startswith(("autoscaler_", "process_")) for family in families)
    assert all(family.documentation for family in families)
    assert not [family.name for family in families if family.name.endswith("_created")]
