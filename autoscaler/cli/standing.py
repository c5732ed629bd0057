"""The command that shows where everything stands, on one screen."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from autoscaler.cli.failure import settings_or_fail
from autoscaler.cli.orders import policies_here, print_overrides
from autoscaler.cli.output import NOTHING, ago, as_object, count, json_option, print_json, print_table
from autoscaler.cli.purchase_table import print_purchases
from autoscaler.cli.records import ledger_view

if TYPE_CHECKING:
    from datetime import datetime

    from autoscaler.ledger import LedgerView
    from autoscaler.overview import Overview, Standing

_REFRESH_SECONDS = 2
_TITLES = (
    *("POLICY", "OUTCOME", "LOAD", "SERVING", "IN FLIGHT", "WANTED", "BUDGET LEFT", "NEXT LAPSE", "EVALUATED"),
    "SENTENCE",
)
_OFTEN_BARE = ("BUDGET LEFT", "NEXT LAPSE")  # columns that are left out where no policy has anything in them


@click.command(short_help="Show where every policy stands.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@json_option
def status(watch: bool, as_json: bool) -> None:
    """Show where every policy stands, by the ledger. What needs a person comes first.

    Each policy's line is its latest decision: what its checks read, workers that carry load, workers bought and not
    yet serving, workers wanted, what the tightest budget leaves, when the next workers lapse, and the sentence that
    says why. Below are the orders in force and the open purchases.

    \b
    Examples:
      autoscaler status
      autoscaler status --watch
      autoscaler status --json | jq '.attention'
    """
    import sys

    settings_or_fail()
    if watch and (as_json or not sys.stdout.isatty()):
        raise click.UsageError("--watch is for a terminal")
    with ledger_view() as ledger:
        if as_json:
            print_json(_as_json(_read(ledger), ledger.holders()))
            return
        _print(_read(ledger))
        with suppress(KeyboardInterrupt):  # which is how one ends it
            while watch:
                time.sleep(_REFRESH_SECONDS)
                stands = _read(ledger)
                click.clear()
                _print(stands)


def _read(ledger: "LedgerView") -> "Overview":
    from autoscaler.clock import utc_now
    from autoscaler.overview import overview

    return overview(ledger, policies_here(), utc_now())


def _as_json(found: "Overview", leases: Sequence[Any]) -> dict[str, Any]:
    return {
        "at": found.at,
        "attention": [
            {"policy": standing.name, **as_object(each)} for standing in found.policies for each in standing.attention
        ],
        "policies": [
            {
                "name": standing.name,
                "dry_run": standing.policy.dry_run if standing.policy else None,
                "load": standing.load,
                "readings": standing.readings,
                "decision": standing.decision,
                "budgets": standing.budgets,
                "overrides": [order.id for order in standing.overrides],
                "purchases": [purchase.id for purchase in standing.purchases],
                "lapses": standing.lapses,
            }
            for standing in sorted(found.policies, key=lambda standing: standing.name)
        ],
        "purchases": found.purchases,
        "overrides": found.overrides,
        "progress": found.progress,
        "leases": leases,
    }


def _print(found: "Overview") -> None:
    click.echo(_summary(found))
    urgent = [(standing.name, each.says) for standing in found.policies for each in standing.attention]
    if urgent:
        click.echo()
        print_table(["NEEDS A PERSON", "BECAUSE"], urgent, prose=True)
    if found.policies:
        click.echo()
        rows = [_row(standing, found.at) for standing in found.policies]
        bare = {n for n, title in enumerate(_TITLES) if title in _OFTEN_BARE and all(row[n] == NOTHING for row in rows)}
        titles = [title for n, title in enumerate(_TITLES) if n not in bare]
        print_table(titles, [[cell for n, cell in enumerate(row) if n not in bare] for row in rows], prose=True)
    if found.overrides:
        click.echo("\nOrders in force")
        print_overrides(found.overrides, found.progress, found.at)
    if found.purchases:
        click.echo("\nOpen purchases")
        print_purchases(found.purchases, found.at)
    if found.retired:
        click.echo(f"\nNot evaluated any more: {', '.join(found.retired)}")


def _summary(found: "Overview") -> str:
    parts = [count(len(found.policies), "policy") if found.policies else "No policy has been evaluated yet"]
    urgent = sum(bool(standing.attention) for standing in found.policies)
    if urgent:
        parts.append(f"{urgent} in need of a person")
    if found.purchases:
        parts.append(f"{count(len(found.purchases), 'purchase')} open")
    if found.overrides:
        parts.append(f"{count(len(found.overrides), 'order')} in force")
    daemons = ", ".join(f"{holder} ({count(clusters, 'cluster')})" for holder, clusters in found.replicas.items())
    return f"{', '.join(parts)}. Daemon at work: {daemons or 'none'}."


def _row(standing: "Standing", now: "datetime") -> list[str]:
    decision = standing.decision
    supply = decision.supply if decision is not None else None
    dry_run = standing.policy is not None and standing.policy.dry_run
    lapse = standing.lapses[0] if standing.lapses else None
    return [
        standing.name + {True: " (dry run)", False: ""}[dry_run],
        NOTHING if decision is None else decision.outcome.value,
        _load(standing),
        NOTHING if supply is None else str(supply.serving),
        NOTHING if supply is None else str(supply.in_flight),
        NOTHING if decision is None or decision.wanted is None else str(decision.wanted),
        NOTHING if standing.budget_left is None else str(standing.budget_left),
        NOTHING if lapse is None else f"{lapse.workers} {ago(lapse.at, now)}",
        "never" if decision is None else ago(decision.at, now),
        "" if decision is None else decision.sentence,
    ]


def _load(standing: "Standing") -> str:
    """What each check read, in their order."""
    from autoscaler.model import Gap
    from autoscaler.strategy import number

    loads = [reading.load for reading in standing.readings]
    return ", ".join("gap" if isinstance(load, Gap) else number(load.value) for load in loads) or NOTHING
