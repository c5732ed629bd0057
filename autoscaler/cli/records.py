"""The commands that read the ledger: where policies stand, and what was decided.

They only look, whether the daemon is up or down, and a ledger that nobody has begun is not begun by them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoscaler.cli.failure import Exit, fail, outside_systems, settings_or_fail
from autoscaler.cli.output import (
    NOTHING,
    ago,
    as_object,
    count,
    instant,
    json_option,
    length,
    print_json,
    print_table,
)
from autoscaler.cli.purchase_table import print_purchases
from autoscaler.model import OverrideKind, PurchaseState

if TYPE_CHECKING:
    from autoscaler.decision import Decision
    from autoscaler.ledger import Ledger, LedgerView
    from autoscaler.model import Override, Purchase

# A policy is evaluated every few seconds or minutes: one that was not for a day was taken out.
_RETIRED_AFTER = timedelta(days=1)


@contextmanager
def ledger_view() -> "Iterator[LedgerView]":
    """The ledger of the settings, to look at; the command fails where there is none."""
    settings = settings_or_fail()

    from autoscaler.clock import utc_now
    from autoscaler.ledger import view_ledger

    with outside_systems():
        ledger = view_ledger(settings.ledger().get_secret_value(), clock=utc_now)
        try:
            yield ledger
        finally:
            ledger.close()


@contextmanager
def ledger_to_change() -> "Iterator[Ledger]":
    """The ledger of the settings, to record what a person says; the command fails where there is none."""
    settings = settings_or_fail()

    from autoscaler.clock import utc_now
    from autoscaler.ledger import open_ledger, view_ledger

    with outside_systems():
        url = settings.ledger().get_secret_value()
        view_ledger(url, clock=utc_now).close()  # fails where there is none: a person's word begins no ledger
        ledger = open_ledger(url, clock=utc_now)
        try:
            yield ledger
        finally:
            ledger.close()


@click.command(short_help="Show where every policy stands.")
@json_option
def status(as_json: bool) -> None:
    """Show where every policy stands, by the ledger. What needs a person comes first.

    Each policy's line is its latest decision: workers that carry load, workers bought and not yet serving, workers
    wanted, and the sentence that says why.

    \b
    Examples:
      autoscaler status
      autoscaler status --json | jq '.attention'
    """
    from autoscaler.clock import utc_now
    from autoscaler.purchase import OPEN

    now = utc_now()
    with ledger_view() as ledger:
        latest = ledger.latest()
        purchases = tuple(purchase for purchase in ledger.unsettled() if purchase.state in OPEN)
        overrides = ledger.overrides(now)
        leases = ledger.holders()
    attention = tuple(_attention(latest, purchases, now))
    if as_json:
        print_json(
            {
                "at": now,
                "attention": [{"policy": policy, "says": says} for policy, says in attention],
                "policies": [latest[name] for name in sorted(latest)],
                "purchases": purchases,
                "overrides": overrides,
                "leases": leases,
            }
        )
        return
    serving = {name: decision for name, decision in latest.items() if now - decision.at < _RETIRED_AFTER}
    at_work = {lease.holder: 0 for lease in leases}
    for lease in leases:
        at_work[lease.holder] += 1
    daemons = ", ".join(f"{holder} ({count(clusters, 'cluster')})" for holder, clusters in sorted(at_work.items()))
    click.echo(f"{_summary(serving, purchases, overrides, attention)} Daemon at work: {daemons or 'none'}.")
    if attention:
        click.echo()
        print_table(["NEEDS A PERSON", "BECAUSE"], attention, prose=True)
    if serving:
        click.echo()
        titles = ["POLICY", "OUTCOME", "SERVING", "IN FLIGHT", "WANTED", "EVALUATED", "SENTENCE"]
        urgent = [policy for policy, _ in attention]
        print_table(titles, [_standing(decision, now) for decision in _ordered(serving, urgent)], prose=True)
    if purchases:
        click.echo("\nOpen purchases")
        print_purchases(purchases, now)
    if overrides:
        click.echo("\nOverrides in force")
        titles = ["ID", "ORDER", "POLICIES", "ENDS", "BY", "REASON"]
        print_table(titles, [_override_row(override, now) for override in overrides], prose=True)
    retired = sorted(latest.keys() - serving.keys())
    if retired:
        click.echo(f"\nNot evaluated for a day or longer: {', '.join(retired)}")


@click.command(short_help="List what was decided, and why.")
@click.argument("policy", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
@json_option
def decisions(policy: str | None, limit: int, as_json: bool) -> None:
    """List the decisions that said something new, the newest first.

    A decision is kept when its outcome, its reason or its number differs from the one before it. What one of them
    rested on shows `autoscaler explain --decision ID`.

    \b
    Examples:
      autoscaler decisions
      autoscaler decisions edge-beijing --limit 5
      autoscaler decisions --json | jq '.decisions[] | select(.outcome == "blocked").sentence'
    """
    from autoscaler.clock import utc_now

    now = utc_now()
    with ledger_view() as ledger:
        name = None if policy is None else known_policy(policy, ledger)
        found = ledger.decisions(policy=name, limit=limit)
    if as_json:
        print_json({"decisions": [{"id": stored.id, **as_object(stored.decision)} for stored in found]})
        return
    if not found:
        click.echo("No decision has been recorded yet.")
        return
    rows = [
        (
            str(stored.id),
            instant(stored.decision.at),
            ago(stored.decision.at, now),
            stored.decision.policy,
            stored.decision.outcome.value,
            stored.decision.sentence,
        )
        for stored in found
    ]
    print_table(["ID", "AT", "AGE", "POLICY", "OUTCOME", "SENTENCE"], rows, prose=True)


def known_policy(policy: str, ledger: "LedgerView") -> str:
    """The name of a policy, given as a name or as the path of its file; the command fails if the ledger has none."""
    from difflib import get_close_matches

    path = Path(policy)
    name = path.stem if path.suffix in {".yaml", ".yml"} else policy
    known = ledger.latest().keys() | {purchase.policy for purchase in ledger.purchases(policy=name, limit=1)}
    if name not in known:
        rows = sorted(each for each in known if each.startswith(f"{name}-"))
        near = rows or get_close_matches(name, known, n=3)
        mend = f"did you mean {', '.join(near)}?" if near else "see `autoscaler status`"
        fail(Exit.USAGE, f"the ledger knows no policy {name}; {mend}")
    return name


def _attention(
    latest: "Mapping[str, Decision]", purchases: "Sequence[Purchase]", now: datetime
) -> Iterator[tuple[str, str]]:
    """Policy, and why somebody has to look after it."""
    from autoscaler.facts import Reason

    for purchase in purchases:
        if purchase.state is PurchaseState.UNKNOWN:
            since = length(now - (purchase.sent_at or purchase.reserved_at))
            yield (
                purchase.policy,
                f"for {since} nobody knows whether purchase {purchase.id} bought its {count(purchase.asked, 'worker')};"
                f" see `autoscaler purchases show {purchase.id}`",
            )
    for policy, decision in sorted(latest.items()):
        if now - decision.at >= _RETIRED_AFTER:
            continue
        # A refusal stands in its rule's verdict also while nothing is needed and it blocks nothing.
        refusals = [verdict.says for verdict in decision.verdicts if verdict.rule == "refused"]
        says = [text for text in refusals if text != "none"]
        if not says and decision.reason in (Reason.NO_PASSWORD, Reason.NOT_EDGE, Reason.RESTORED):
            says = [decision.sentence]
        yield from ((policy, text) for text in says)


def _summary(
    decisions: "Mapping[str, Decision]",
    purchases: "Sequence[Purchase]",
    overrides: "Sequence[Override]",
    attention: Sequence[tuple[str, str]],
) -> str:
    parts = [count(len(decisions), "policy") if decisions else "No policy has been evaluated yet"]
    urgent = len({policy for policy, _ in attention})
    if urgent:
        parts.append(f"{urgent} in need of a person")
    if purchases:
        parts.append(f"{count(len(purchases), 'purchase')} open")
    if overrides:
        parts.append(f"{count(len(overrides), 'override')} in force")
    return ", ".join(parts) + "."


def _ordered(decisions: "Mapping[str, Decision]", urgent: Sequence[str]) -> "list[Decision]":
    """Those that need a person, those that are blocked, then the rest, by name."""
    from autoscaler.model import Outcome

    return sorted(
        decisions.values(),
        key=lambda decision: (decision.policy not in urgent, decision.outcome is not Outcome.BLOCKED, decision.policy),
    )


def _standing(decision: "Decision", now: datetime) -> tuple[str, ...]:
    supply = decision.supply
    return (
        decision.policy,
        decision.outcome.value,
        NOTHING if supply is None else str(supply.serving),
        NOTHING if supply is None else str(supply.in_flight),
        NOTHING if decision.wanted is None else str(decision.wanted),
        ago(decision.at, now),
        decision.sentence,
    )


def _override_row(override: "Override", now: datetime) -> tuple[str, ...]:
    order = override.kind.value
    if override.kind is not OverrideKind.FREEZE:
        order += f" {override.workers}"
    policies = "all" if override.policies == ("*",) else ", ".join(override.policies)
    return str(override.id), order, policies, ago(override.ends_at, now), override.author, override.reason
