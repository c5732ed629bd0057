"""What is wrong with policies beside each other, and what is doubtful about one that is valid.

A policy's own impossibilities are refused as it is made; here is what only shows beside others, or what may be meant.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from autoscaler import promql
from autoscaler.duration import format_duration
from autoscaler.policy.checks import Schedule, Setpoint
from autoscaler.policy.document import Severity
from autoscaler.policy.fields import Path
from autoscaler.policy.values import Limits, Policy

_MONTHS_SOLD_BY_ALL_PAGES = frozenset({1, 2, 3, 6, 12})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a policy."""

    policy: str
    path: Path  # where in the policy
    what: str
    mend: str
    severity: Severity


def clashes(policies: Iterable[Policy]) -> Iterator[Finding]:
    """Errors: policies that would buy each other's workers, or count each other's money in another currency."""
    policies = tuple(policies)
    yield from _shared_workers(policies)
    yield from _mixed_currencies(policies)


def doubts(policy: Policy) -> Iterator[Finding]:
    """Warnings: what is possible and seldom meant."""

    def doubt(path: Path, what: str, mend: str) -> Finding:
        return Finding(policy.name, path, what, mend, Severity.WARNING)

    limits = policy.limits
    if not policy.dry_run and not limits.budgets:
        yield doubt(("limits",), "has no budget, and the policy buys", "add budgets: [{workers: 10, per: 24h}]")
    if not policy.checks and limits.minimum == 0:
        yield doubt(("checks",), "are missing and minimum is 0, so nothing is bought but by hand", "add a check")
    if policy.cooldown < policy.evaluate_every:
        period = format_duration(policy.evaluate_every)
        yield doubt(("cooldown",), f"is shorter than evaluate_every, {period}", f"write {period} or more")
    if policy.worker.worker_period not in _MONTHS_SOLD_BY_ALL_PAGES:
        what = f"{policy.worker.worker_period} months may not be sold: the cloud's pages differ"
        yield doubt(("worker", "worker_period"), what, "write 1, 2, 3, 6 or 12")
    for path, query in _queries(policy):
        if promql.may_return_several(query):
            what = "may give several series, which is a gap"
            yield doubt(path, what, "wrap it in sum(), max(), avg() or count(), without by")
    for index, check in enumerate(policy.checks):
        if isinstance(check, Schedule):
            for number, window in enumerate(check.windows):
                needed = joining_takes(policy, window.workers)
                if window.lead < needed:
                    what = f"{format_duration(window.lead)} is shorter than {window.workers} workers take to join"
                    mend = f"write {format_duration(needed)} or more, or raise limits.per_action"
                    yield doubt(("checks", index, "windows", number, "lead"), what, mend)


def joining_takes(policy: Policy, workers: int) -> timedelta:
    """How long ``workers`` take from the first purchase to being useful: one purchase after another, then warm_up."""
    purchases = -(-workers // policy.limits.per_action)
    between = max(policy.cooldown, policy.assumed_join)
    return policy.assumed_join + policy.warm_up + (purchases - 1) * between


def _queries(policy: Policy) -> Iterator[tuple[Path, str]]:
    if policy.capacity.query is not None:
        yield ("capacity", "query"), policy.capacity.query
    for index, check in enumerate(policy.checks):
        if isinstance(check, Schedule):
            continue
        yield ("checks", index, "query"), check.query
        if isinstance(check, Setpoint) and check.over is not None:
            yield ("checks", index, "over"), check.over


def _shared_workers(policies: tuple[Policy, ...]) -> Iterator[Finding]:
    by_type: dict[tuple[str, str], list[Policy]] = defaultdict(list)
    for policy in policies:
        by_type[policy.cluster_id, policy.worker.worker_instance_type].append(policy)
    for group in by_type.values():
        by_region: dict[str, list[Policy]] = defaultdict(list)
        for policy in group:
            by_region[policy.worker.ens_region_id].append(policy)
        for policy in group:
            twins = [other.name for other in by_region[policy.worker.ens_region_id] if other is not policy]
            if twins:
                yield Finding(
                    policy.name,
                    ("worker", "ens_region_id"),
                    f"has cluster, instance type and ENS region in common with {_named(twins)}",
                    "make one policy of them, or buy another instance type",
                    Severity.ERROR,
                )
            elif len(group) > 1 and policy.capacity.query is None:
                others = [other.name for other in group if other is not policy]
                yield Finding(
                    policy.name,
                    ("capacity",),
                    f"needs a query: cluster and instance type are those of {_named(others)} too,"
                    " and the node list does not tell their workers apart",
                    "add capacity.query, counting this policy's serving workers",
                    Severity.ERROR,
                )


def _mixed_currencies(policies: tuple[Policy, ...]) -> Iterator[Finding]:
    sharing: dict[str, list[tuple[Policy, int]]] = defaultdict(list)
    for policy in policies:
        for index, name in _shared_money(policy.limits):
            sharing[name].append((policy, index))
    for name, users in sharing.items():
        currencies = {policy.currency for policy, _ in users}
        if len(currencies) > 1:
            known = ", ".join(sorted(currency or "none" for currency in currencies))
            for policy, index in users:
                yield Finding(
                    policy.name,
                    ("limits", "budgets", index),
                    f"counts money in several currencies: budget {name!r} is shared by policies in {known}",
                    "give all of them one currency, or each currency a budget",
                    Severity.ERROR,
                )


def _shared_money(limits: Limits) -> Iterator[tuple[int, str]]:
    for index, budget in enumerate(limits.budgets):
        if budget.shared is not None and budget.money is not None:
            yield index, budget.shared


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
