"""What Prometheus may know of the autoscaler: figures that the daemon keeps here as things happen.

Only five series carry a policy's name, since with thousands of policies each further one costs a tenth of a second at
every scrape. Figures of purchases come from the purchases themselves, so that they survive a restart and agree between
replicas. What is not known is left out rather than shown as zero. What a dry run does carries a label that says so and
is in no figure of workers bought or money committed.
"""

import platform
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from autoscaler import __version__
from autoscaler.budget import money_of
from autoscaler.decision import Decision, Evaluation
from autoscaler.model import GapReason, Purchase, PurchaseState
from autoscaler.purchase import UNRESOLVED, committed

# An evaluation is a few milliseconds beside a near Prometheus and at most its timeout, 5 s by default.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Dropped(StrEnum):
    """Why the scheduler left out a run; also the label of the metric."""

    MISSED = "missed"  # its time had passed
    MAX_INSTANCES = "max_instances"  # the run before it was still at work


@dataclass(frozen=True, slots=True)
class _Bought:
    """What the figures need of a purchase."""

    state: PurchaseState
    imagined: bool
    workers: int  # committed
    money: Fraction | None
    currency: str


class Metrics:
    """The autoscaler's figures, in ``registry``. Every method may be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # They double the series of each counter to tell what Prometheus sees for itself: that it began.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types all but this
        self._decisions: dict[str, tuple[Decision, bool]] = {}
        self._purchases: dict[int, _Bought] = {}
        self._evaluations = Counter(
            "autoscaler_evaluations_total",
            "Evaluations of policies by what they came to.",
            ("outcome", "reason", "dry_run"),
            registry=registry,
        )
        self._seconds = Histogram(
            "autoscaler_evaluation_seconds",
            "How long an evaluation took, from asking Prometheus to the recorded decision.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._gaps = Counter(
            "autoscaler_gaps_total",
            "Readings that could not be used, of load or of capacity, by the reason.",
            ("reason",),
            registry=registry,
        )
        self._dropped = Counter(
            "autoscaler_scheduler_dropped_runs_total",
            "Runs that the scheduler left out.",
            ("cause",),
            registry=registry,
        )
        self._heartbeat = Gauge(
            "autoscaler_heartbeat_timestamp_seconds",
            "When the scheduler last ran its own heartbeat.",
            registry=registry,
        )
        self._policies = Gauge("autoscaler_policies", "Policies that are evaluated.", registry=registry)
        self._problems = Gauge(
            "autoscaler_policy_problems",
            "Errors in the policy files as last loaded; a file with one keeps its last good policies.",
            registry=registry,
        )
        build = Gauge(
            "autoscaler_build_info", "The running version; always 1.", ("version", "python"), registry=registry
        )
        build.labels(__version__, platform.python_version()).set(1)
        # A series that begins at its first event hides that event from rate() and increase().
        for reason in GapReason:
            self._gaps.labels(reason.value)
        for cause in Dropped:
            self._dropped.labels(cause.value)
        ProcessCollector(registry=registry)
        registry.register(self)

    def evaluated(self, evaluation: Evaluation, seconds: float) -> None:
        """Count one evaluation, which took ``seconds``, and show how its policy stands."""
        decision, dry_run = evaluation.decision, evaluation.facts.policy.dry_run
        self._evaluations.labels(decision.outcome.value, decision.reason.value, _flag(dry_run)).inc()
        self._seconds.observe(seconds)
        for _, gap in decision.gaps:
            self._gaps.labels(gap.reason.value).inc()
        self._decisions[decision.policy] = (decision, dry_run)

    def forget(self, policy: str) -> None:
        """Show a policy no longer: it is gone from the files, or another replica evaluates it now."""
        self._decisions.pop(policy, None)

    def purchases_changed(self, purchases: Iterable[Purchase]) -> None:
        """Take over how ``purchases`` stand now: all of the ledger's at start, before the first scrape, then any that
        may have changed. To tell of one again is harmless.
        """
        for purchase in purchases:
            self._purchases[purchase.id] = _Bought(
                purchase.state,
                purchase.imagined,
                committed(purchase),
                money_of(purchase),
                purchase.terms.currency or "",
            )

    def policies_loaded(self, policies: int, problems: int) -> None:
        """Show how many policies are evaluated, and how many errors the files had at the last load."""
        self._policies.set(policies)
        self._problems.set(problems)

    def run_dropped(self, cause: Dropped) -> None:
        """Count a run that the scheduler left out."""
        self._dropped.labels(cause.value).inc()

    def beat(self, at: datetime) -> None:
        """Show that the scheduler was alive at ``at``."""
        self._heartbeat.set(at.timestamp())

    def collect(self) -> Iterator[Metric]:
        """The figures made at each scrape, for the registry."""
        yield from _of_policies(list(self._decisions.values()))
        yield from _of_purchases(list(self._purchases.values()))


def _of_policies(decisions: list[tuple[Decision, bool]]) -> Iterator[Metric]:
    ready = GaugeMetricFamily("autoscaler_workers_ready", "Workers that carry load now.", labels=("policy",))
    in_flight = GaugeMetricFamily(
        "autoscaler_workers_in_flight", "Workers asked for and not yet serving.", labels=("policy",)
    )
    wanted = GaugeMetricFamily(
        "autoscaler_workers_wanted", "Workers the last evaluation wanted in all.", labels=("policy",)
    )
    at = GaugeMetricFamily(
        "autoscaler_last_evaluation_timestamp_seconds", "When the policy was last evaluated.", labels=("policy",)
    )
    outcome = GaugeMetricFamily(
        "autoscaler_outcome",
        "The outcome of the policy's last evaluation; always 1.",
        labels=("policy", "outcome", "dry_run"),
    )
    for decision, dry_run in decisions:
        policy = [decision.policy]
        if decision.supply is not None:
            ready.add_metric(policy, decision.supply.serving - decision.supply.imagined)
            in_flight.add_metric(policy, decision.supply.in_flight)
        if decision.wanted is not None:
            wanted.add_metric(policy, decision.wanted)
        at.add_metric(policy, decision.at.timestamp())
        outcome.add_metric([*policy, decision.outcome.value, _flag(dry_run)], 1)
    yield from (ready, in_flight, wanted, at, outcome)


def _of_purchases(purchases: list[_Bought]) -> Iterator[Metric]:
    by_state = GaugeMetricFamily(
        "autoscaler_purchases", "Purchases in the ledger by state.", labels=("state", "imagined")
    )
    tally = Tally((purchase.state, purchase.imagined) for purchase in purchases)
    for state in PurchaseState:
        by_state.add_metric([state.value, "false"], tally[state, False])
        if tally[state, True]:
            by_state.add_metric([state.value, "true"], tally[state, True])
    yield by_state

    real = [purchase for purchase in purchases if not purchase.imagined]
    yield GaugeMetricFamily(
        "autoscaler_committed_workers",
        "Workers of all purchases that were made or may have been made.",
        value=sum(purchase.workers for purchase in real),
    )
    yield CounterMetricFamily(
        "autoscaler_purchased_workers_total",
        "Workers of all purchases that the cloud accepted.",
        value=sum(purchase.workers for purchase in real if purchase.state not in UNRESOLVED),
    )
    money = GaugeMetricFamily(
        "autoscaler_committed_money",
        "First terms of those workers: count times price times months. Without renewals, and policies without a price.",
        labels=("currency",),
    )
    for currency in sorted({purchase.currency for purchase in real if purchase.money is not None}):
        money.add_metric(
            [currency],
            float(sum(purchase.money or 0 for purchase in real if purchase.currency == currency)),
        )
    yield money


def _flag(value: bool) -> str:
    return "true" if value else "false"
