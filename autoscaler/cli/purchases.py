"""The commands on purchases: each ScaleOutCluster call, its fate, and what a person has to say of it."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from autoscaler.cli.author import author_option, reason_option
from autoscaler.cli.failure import Exit, fail
from autoscaler.cli.orders import orders_over
from autoscaler.cli.output import (
    NOTHING,
    ago,
    count,
    instant,
    json_option,
    length,
    print_fields,
    print_json,
    print_table,
)
from autoscaler.cli.purchase_table import print_purchases, state_of
from autoscaler.cli.records import ID, known_policy, ledger_to_change, ledger_view
from autoscaler.model import PurchaseState

if TYPE_CHECKING:
    from autoscaler.ledger import PurchaseEvent
    from autoscaler.model import Purchase
    from autoscaler.orders import Orders


@click.group(short_help="Look at what was bought, and settle what nobody knows.")
def purchases() -> None:
    """Look at what was bought, each ScaleOutCluster call and its fate, and settle what nobody knows."""


@purchases.command("list")
@click.option("--policy", help="Only those of this policy.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in PurchaseState]),
    help="Only those in this state; may be given several times.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
@json_option
def list_purchases(policy: str | None, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List purchases, the newest first.

    \b
    Examples:
      autoscaler purchases list
      autoscaler purchases list --state unknown --state accepted
      autoscaler purchases list --policy edge-beijing --json | jq '.purchases[].arrived'
    """
    from autoscaler.clock import utc_now

    now = utc_now()
    with ledger_view() as ledger:
        name = None if policy is None else known_policy(policy, ledger)
        wanted = {PurchaseState(state) for state in states} or None
        found = ledger.purchases(policy=name, states=wanted, limit=limit)
    if as_json:
        print_json({"purchases": found})
    elif found:
        print_purchases(found, now)
    else:
        click.echo("No purchase is there." if policy or states else "Nothing has been bought yet.")


@purchases.command("show", short_help="Show everything known of one.")
@click.argument("id", type=ID)
@json_option
def show_purchase(id: int, as_json: bool) -> None:
    """Show everything known of a purchase, and what happened to it, when and by whom.

    \b
    Examples:
      autoscaler purchases show 17
      autoscaler purchases show 17 --json | jq '.events[-1]'
    """
    from autoscaler.clock import utc_now

    now = utc_now()
    with ledger_view() as ledger:
        purchase = ledger.purchase(id)
        if purchase is None:
            fail(Exit.USAGE, f"there is no purchase {id}; see `autoscaler purchases list`")
        events = ledger.purchase_events(id)
    if as_json:
        print_json({"purchase": purchase, "events": events})
        return
    print_fields(_purchase_fields(purchase, now))
    click.echo()
    print_table(["AT", "AGE", "STATE", "BY", "WHAT"], [_event_row(event, now) for event in events], prose=True)
    if purchase.arrivals:
        click.echo()
        rows = [
            (arrival.instance_id, _moment(arrival.at, now), _moment(arrival.gone_at, now))
            for arrival in purchase.arrivals
        ]
        print_table(["WORKER", "FIRST SEEN", "LAST SEEN, IF GONE"], rows)


@purchases.command("settle", short_help="Say what became of one of unknown outcome.")
@click.argument("id", type=ID)
@click.option("--bought", type=click.IntRange(min=1), metavar="N", help="So many workers were bought.")
@click.option("--not-bought", is_flag=True, help="Nothing was bought.")
@reason_option
@author_option
@json_option
def settle_purchase(id: int, bought: int | None, not_bought: bool, reason: str, author: str, as_json: bool) -> None:
    """Say what became of a purchase of unknown outcome, after a look at the cloud's console and its bills.

    While it is unknown nothing more is bought for its cluster. Workers bought are waited for from then on; that nothing
    was bought is refused while the cloud could still carry the request out.

    \b
    Examples:
      autoscaler purchases settle 17 --bought 3 --reason "console shows 3 new instances"
      autoscaler purchases settle 17 --not-bought --reason "no order in the billing centre"
    """
    if (bought is None) is not not_bought:
        raise click.UsageError("say either --bought N or --not-bought")
    _say(lambda orders: orders.settle(id, bought, author, reason), id, as_json)


@purchases.command("retry", short_help="End a refusal that waits for a person.")
@click.argument("id", type=ID)
@reason_option
@author_option
@json_option
def retry_purchase(id: int, reason: str, author: str, as_json: bool) -> None:
    """End the refusal that a purchase left, once what the cloud refused it for is mended.

    The purchase itself is over and is not sent again: its policies may buy anew at their next evaluation.

    \b
    Example:
      autoscaler purchases retry 17 --reason "cs:ScaleCluster granted"
    """
    _say(lambda orders: orders.retry(id, author, reason), id, as_json)


def _say(say: "Callable[[Orders], Purchase]", id: int, as_json: bool) -> None:
    """Record what a person says of a purchase, or tell why it cannot be said."""
    from autoscaler.ledger import NotFound
    from autoscaler.purchase import CannotSettle

    with ledger_to_change() as ledger:
        try:
            purchase = say(orders_over(ledger, ()))
        except NotFound:
            fail(Exit.USAGE, f"there is no purchase {id}; see `autoscaler purchases list`")
        except CannotSettle as error:
            fail(Exit.NO, str(error))
        what = ledger.purchase_events(id)[-1]
    if as_json:
        print_json({"purchase": purchase})
    else:
        click.echo(f"Purchase {purchase.id} is now {state_of(purchase)}: {what.what} (by {what.author}).")


def _purchase_fields(purchase: "Purchase", now: datetime) -> Iterator[tuple[str, str]]:
    """Names and values for people; what is not known is left out."""
    from autoscaler.budget import money_of
    from autoscaler.purchase import quiet_at
    from autoscaler.strategy import number

    terms = purchase.terms
    money = money_of(purchase)
    renewed = f"renewed by {count(terms.auto_renew_period or 1, 'month')}" if terms.auto_renew else "not renewed"
    told: list[tuple[str, str | None]] = [
        ("purchase", str(purchase.id)),
        ("state", state_of(purchase)),
        ("policy", f"{purchase.policy} (version {purchase.policy_version})"),
        ("cluster", purchase.cluster_id),
        ("asked", str(purchase.asked)),
        ("arrived", str(purchase.arrived)),
        ("failed", str(purchase.failed)),
        ("outstanding", str(purchase.outstanding)),
        ("supply before", str(purchase.supply_before)),
        ("worker", f"{terms.instance_type} in {terms.ens_region_id}"),
        ("term", f"{count(terms.period, 'month')}, {renewed}"),
        ("committed", None if money is None else f"{number(money)} {terms.currency or ''}".rstrip()),
        ("shared budgets", ", ".join(purchase.shared_budgets) or None),
        ("order", None if purchase.order_id is None else str(purchase.order_id)),
        ("reserved", _moment(purchase.reserved_at, now)),
        ("signed", _moment(purchase.signed_at, now)),
        ("sent", _moment(purchase.sent_at, now) if purchase.sent_at else "never"),
        ("answered", _moment(purchase.answered_at, now) if purchase.answered_at else None),
        ("ended", _moment(purchase.ended_at, now) if purchase.ended_at else None),
        ("overdue since", _moment(purchase.overdue_at, now) if purchase.overdue_at else None),
        ("retry allowed", _moment(purchase.retried_at, now) if purchase.retried_at else None),
        ("task", purchase.task_id),
        ("refused as", None if purchase.refusal is None else purchase.refusal.value),
        ("code", purchase.code),
        ("message", purchase.message),
        ("failed workers", ", ".join(purchase.failures) or None),
        ("request", purchase.request_id),
        ("endpoint", purchase.endpoint),
        ("credential", f"{purchase.credential} (fingerprint)"),
        ("nonce", purchase.nonce),
        ("given up after", f"{length(terms.provision_timeout)} (the cloud's own limit: {terms.timeout_mins}m)"),
    ]
    if purchase.state is PurchaseState.UNKNOWN:
        earliest = quiet_at(purchase)
        alone = terms.settle_unknown == "after_quiet_period"
        says = "will be assumed" if alone else "may be said"
        unknown = (
            "whether anything was bought: it counts as in flight and in budgets until evidence or a person settles it; "
            f"not bought {says} from {instant(earliest)} on ({ago(earliest, now)})"
        )
        told.insert(2, ("unknown", unknown))
    yield from ((name, value) for name, value in told if value is not None)


def _event_row(event: "PurchaseEvent", now: datetime) -> tuple[str, ...]:
    return instant(event.at), ago(event.at, now), event.after.value, event.author or "daemon", event.what


def _moment(at: datetime | None, now: datetime) -> str:
    return NOTHING if at is None else f"{instant(at)} ({ago(at, now)})"
