"""The ledger as commands have it, and the command that lists what was decided.

Those that only look do so whether the daemon is up or down, and a ledger that nobody has begun is not begun by them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoscaler.cli.failure import Exit, fail, outside_systems, settings_or_fail
from autoscaler.cli.output import (
    ago,
    as_object,
    instant,
    json_option,
    print_json,
    print_table,
)
from autoscaler.model import LARGEST_ID

if TYPE_CHECKING:
    from autoscaler.ledger import Ledger, LedgerView

ID = click.IntRange(1, LARGEST_ID)
"""The number of something in the ledger."""

_IMAGINES = {True: " (dry run)", False: ""}


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


@click.command(short_help="List what was decided, and why.")
@click.argument("policy", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
@json_option
def decisions(policy: str | None, limit: int, as_json: bool) -> None:
    """List the decisions that said something new, the newest first.

    A decision is kept when its outcome, its reason or its number differs from the one before it. `autoscaler
    explain --decision ID` shows what one rested on.

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
            stored.decision.policy + _IMAGINES[stored.decision.dry_run],
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
