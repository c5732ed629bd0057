"""The judge: the cloud's order log against the rows of the ledger's file, by their nonces.

It reads the file itself, with the standard library: a mistake of the product's code cannot be in both.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.sandbox import Order
from tests.crashes.replica import WANTED, WORKERS_AT_FIRST
from tests.crashes.troubles import Call, Trouble

_NOTHING_BOUGHT = ("cancelled", "rejected", "not_bought")
_OPEN = ("intended", "sending", "unknown", "accepted")


@dataclass(frozen=True, slots=True)
class Row:
    """A purchase as the ledger has it at the end."""

    id: int
    nonce: str
    state: str
    asked: int


@dataclass(slots=True)
class Evidence:
    """What the world saw during the course."""

    problems: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # of a person, in their order
    unknown: dict[str, int] = field(default_factory=dict)  # nonce of a purchase a person settled: workers really sold
    colleagues: int = 0  # workers bought by the console


@dataclass(slots=True)
class Verdict:
    """What the judge found."""

    problems: list[str] = field(default_factory=list)
    sold: int = 0  # workers in our orders
    asked: int = 0  # workers in purchases, but for those of which the ledger says that nothing was bought
    orders: tuple[int, ...] = ()
    calls: tuple[Call, ...] = ()


def purchases_of(file: Path) -> list[Row]:
    """The purchases in a ledger's file."""
    with closing(sqlite3.connect(file)) as connection:
        return [Row(*row) for row in connection.execute("SELECT id, nonce, state, asked FROM purchases ORDER BY id")]


def judge(
    trouble: Trouble,
    evidence: Evidence,
    *,
    rows: Sequence[Row],
    orders: Sequence[Order],
    posts: Sequence[str | None],
    ready: int,
    disturbed: bool,
) -> Verdict:
    """Compare what was sold with what was to be bought.

    ``posts``: the nonces of all purchases that reached the cloud; ``ready``: the workers that carry load long after.
    """
    ours = [order for order in orders if order.origin == "api"]
    problems = [*evidence.problems, *doubled(rows, ours, posts), *never_settled(rows)]
    problems += _needless_calls(trouble, evidence)
    arrived = ready - WORKERS_AT_FIRST - evidence.colleagues
    if arrived > WANTED - WORKERS_AT_FIRST:
        problems.append(f"{arrived} workers came of our orders, {WANTED - WORKERS_AT_FIRST} were wanted")
    if ready < WANTED:
        problems.append(f"{ready} workers in the end, {WANTED} were wanted")
    counts = tuple(order.count for order in ours)
    if not disturbed and counts != trouble.sold:
        problems.append(f"sold {counts}, expected {trouble.sold}")
    if not disturbed and tuple(evidence.calls) != trouble.calls:
        called, expected = (", ".join(calls) or "nothing" for calls in (evidence.calls, trouble.calls))
        problems.append(f"called a person for {called}, expected {expected}")
    return Verdict(
        problems=list(dict.fromkeys(problems)),
        sold=sum(counts),
        asked=sum(row.asked for row in rows if row.state not in _NOTHING_BOUGHT),
        orders=counts,
        calls=tuple(evidence.calls),
    )


def doubled(rows: Sequence[Row], orders: Sequence[Order], posts: Sequence[str | None]) -> list[str]:
    """What shows that an intent led to more than one purchase, or to more than it asked.

    ``orders``: those by the API; ``posts``: the nonces of all purchases that reached the cloud.
    """
    problems = []
    by_nonce = {row.nonce: row for row in rows}
    for nonce, times in Counter(order.nonce for order in orders).items():
        if times > 1:
            problems.append(f"{times} orders of one purchase")
        if nonce not in by_nonce:
            problems.append("an order that is no purchase's")
    for nonce, times in Counter(posts).items():
        if times > 1:
            problems.append(f"a purchase was sent {times} times")
        if nonce not in by_nonce:
            problems.append("a request that is no purchase's")
    for order in orders:
        row = by_nonce.get(order.nonce or "")
        if row is None:
            continue
        if order.count > row.asked:
            problems.append(f"purchase {row.id} asked {row.asked} and the cloud sold {order.count}")
        if row.state in _NOTHING_BOUGHT:
            problems.append(f"purchase {row.id} is {row.state}, and the cloud sold {order.count}")
    return problems


def never_settled(rows: Sequence[Row]) -> list[str]:
    """The purchases that are still open."""
    return [f"purchase {row.id} is still {row.state}" for row in rows if row.state in _OPEN]


def _needless_calls(trouble: Trouble, evidence: Evidence) -> list[str]:
    """Calls of a person that evidence, or the policy's own wish, should have spared."""
    problems = []
    for sold in evidence.unknown.values():
        if trouble.settles_itself:
            problems.append("a person was called although the policy settles by itself")
        elif sold and not evidence.colleagues:
            problems.append(f"a person was called although the cloud shows the {sold} workers sold")
    # Also who stood still for too long, and is refused for its old signature, needs none.
    if Call.REFUSED in evidence.calls and Call.REFUSED not in trouble.calls:
        problems.append("a person was called for a refusal that waits for none")
    return problems
