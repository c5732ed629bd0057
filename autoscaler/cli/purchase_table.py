"""Purchases as a table, for every command that lists them."""

from collections.abc import Sequence
from datetime import datetime

from autoscaler.cli.output import ago, instant, print_table
from autoscaler.model import Purchase


def print_purchases(purchases: Sequence[Purchase], now: datetime) -> None:
    """Print a line for each purchase."""
    rows = [
        (
            str(purchase.id),
            purchase.policy,
            state_of(purchase),
            f"{purchase.arrived} of {purchase.asked}",
            instant(purchase.sent_at or purchase.reserved_at),
            ago(purchase.sent_at or purchase.reserved_at, now),
            _remark(purchase),
        )
        for purchase in purchases
    ]
    titles = ["ID", "POLICY", "STATE", "ARRIVED", "SENT", "AGE"]
    if any(row[-1] for row in rows):
        print_table([*titles, "REMARK"], rows, prose=True)
    else:
        print_table(titles, [row[:-1] for row in rows])


def state_of(purchase: Purchase) -> str:
    """The state, and whether it is one of a dry run."""
    return purchase.state.value + (" (imagined)" if purchase.imagined else "")


def _remark(purchase: Purchase) -> str:
    parts = []
    if purchase.failed:
        parts.append(f"{purchase.failed} failed")
    if purchase.order_id is not None:
        parts.append(f"for order {purchase.order_id}")
    if purchase.code or purchase.message:
        parts.append(": ".join(text for text in (purchase.code, purchase.message) if text))
    return "; ".join(parts)
