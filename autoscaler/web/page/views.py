"""What the first page and a policy's page show, made from the overview and put into the texts' words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from urllib.parse import urlencode

from autoscaler.budget import Room
from autoscaler.model import CheckReading, Gap, Outcome, Override, Purchase, PurchaseState
from autoscaler.orders import Progress
from autoscaler.overview import Need, Overview, Standing
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.wording import Wording

LOOKS = {Outcome.SCALE_OUT: "buys", Outcome.BLOCKED: "blocked", Outcome.HOLD: "plain"}
"""How an outcome is drawn; parts.html knows the shapes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why somebody has to look after a policy, and where to go for it."""

    word: str
    says: str
    href: str | None  # the page where a person can do something about it
    action: str


@dataclass(frozen=True, slots=True)
class Row:
    """A policy in the table of all."""

    name: str
    look: str
    state: str
    dry_run: bool
    overrides: tuple[Override, ...]
    causes: tuple[Cause, ...]  # the most urgent first
    loads: tuple[tuple[str, str], ...]  # of each check: its name, and the value it read or a dash
    serving: str
    in_flight: str
    wanted: str
    gauge: tuple[int, int, int | None, int] | None  # serving, in flight, wanted, most
    sentence: str
    at: datetime | None
    late: bool

    @property
    def needy(self) -> bool:
        """Whether it needs a person."""
        return bool(self.causes)

    @property
    def beside(self) -> tuple[Cause, ...]:
        """The causes that say more than the sentence does, or lead to where something can be done."""
        return tuple(cause for cause in self.causes if cause.href or cause.says not in self.sentence)


@dataclass(frozen=True, slots=True)
class Choice:
    """A link that shows only some of the policies."""

    word: str
    href: str
    n: int
    chosen: bool


@dataclass(frozen=True, slots=True)
class Front:
    """The first page."""

    summary: str
    needy: tuple[Row, ...]
    others: tuple[Row, ...]
    nothing: str  # what stands where no policy is shown
    query: str
    only: str
    choices: tuple[Choice, ...]
    overrides: tuple[Override, ...]
    progress: dict[int, str]
    purchases: tuple[Purchase, ...]
    daemons: str
    retired: tuple[str, ...]


_ONLY: dict[str, Callable[[Row], bool]] = {
    "": lambda row: True,
    "person": lambda row: row.needy,
    "buying": lambda row: row.look == "buys" or (row.gauge is not None and row.gauge[1] > 0),
    "ordered": lambda row: bool(row.overrides),
}


def front(overview: Overview, texts: Texts, words: Wording, query: str, only: str) -> Front:
    """The first page. ``query`` filters by words that all have to stand in a policy's row; ``only`` is one of a few."""
    rows = [row_of(standing, texts, words) for standing in overview.policies]
    only = only if only in _ONLY else ""
    sought = query.casefold().split()
    labels = {
        standing.name: " ".join(f"{key}={value}" for key, value in standing.policy.labels.items())
        for standing in overview.policies
        if standing.policy is not None
    }
    found = [row for row in rows if all(word in _text_of(row, labels.get(row.name, "")) for word in sought)]
    shown = [row for row in found if _ONLY[only](row)]
    return Front(
        summary=_summary(overview, rows, texts),
        needy=tuple(row for row in shown if row.needy),
        others=tuple(row for row in shown if not row.needy),
        nothing=texts("overview.nothing_found") if rows else texts("overview.nothing"),
        query=query,
        only=only,
        choices=tuple(
            Choice(
                word=texts(f"overview.choice.{key or 'all'}"),
                href="/?" + urlencode({name: text for name, text in (("q", query), ("only", key)) if text}),
                n=sum(map(kept, found)),
                chosen=key == only,
            )
            for key, kept in _ONLY.items()
        ),
        overrides=overview.overrides,
        progress=progress_of(overview.progress, texts),
        purchases=overview.purchases,
        daemons=_daemons(overview, texts),
        retired=overview.retired,
    )


def row_of(standing: Standing, texts: Texts, words: Wording) -> Row:
    """One policy as it stands."""
    decision, policy = standing.decision, standing.policy
    supply = None if decision is None else decision.supply
    wanted = None if decision is None else decision.wanted
    if standing.attention:
        first = standing.attention[0].need
        look, state = "blocked" if first is Need.BLOCKED else "person", texts(f"need.{first.value}")
    elif decision is None:
        look, state = "plain", texts("overview.unevaluated")
    else:
        look, state = LOOKS[decision.outcome], texts(f"outcome.{decision.outcome.value}")
    none = texts("none")
    most = supply.total if supply is not None else 0
    return Row(
        name=standing.name,
        look=look,
        state=state,
        dry_run=policy is not None and policy.dry_run,
        overrides=standing.overrides,
        causes=tuple(_causes(standing, texts)),
        loads=tuple(load_of(reading, none, words) for reading in standing.readings),
        serving=none if supply is None else str(supply.serving),
        in_flight=none if supply is None else str(supply.in_flight),
        wanted=none if wanted is None else str(wanted),
        gauge=None
        if supply is None
        else (supply.serving, supply.in_flight, wanted, most if policy is None else policy.limits.maximum),
        sentence="" if decision is None else decision.sentence,
        at=None if decision is None else decision.at,
        late=any(each.need is Need.OVERDUE for each in standing.attention),
    )


def load_of(reading: CheckReading, none: str, words: Wording) -> tuple[str, str]:
    """A check's name and what it read."""
    return reading.check, none if isinstance(reading.load, Gap) else words.number(reading.load.value)


def _causes(standing: Standing, texts: Texts) -> Iterable[Cause]:
    unknown = [purchase for purchase in standing.purchases if purchase.state is PurchaseState.UNKNOWN]
    for attention in standing.attention:
        href = action = None
        if attention.need is Need.UNKNOWN_PURCHASE and unknown:
            href, action = f"/purchases/{unknown.pop(0).id}", texts("purchase.settle")
        elif attention.need is Need.REFUSED:
            href, action = "/purchases?only=refused", texts("overview.refusals")
        yield Cause(texts(f"need.{attention.need.value}"), attention.says, href, action or "")


def _text_of(row: Row, labels: str) -> str:
    ordered = " ".join(order.kind.value for order in row.overrides)
    said = " ".join(cause.says for cause in row.causes)
    return f"{row.name} {labels} {row.state} {ordered} {said} {row.sentence}".casefold()


def _summary(overview: Overview, rows: Sequence[Row], texts: Texts) -> str:
    if not rows:
        return texts("overview.nothing")
    parts = [texts("overview.policies_n", n=len(rows))]
    needy = sum(row.needy for row in rows)
    parts.append(texts("overview.needy_n", n=needy) if needy else texts("overview.needy_none"))
    if overview.purchases:
        parts.append(texts("overview.purchases_n", n=len(overview.purchases)))
    if overview.overrides:
        parts.append(texts("overview.overrides_n", n=len(overview.overrides)))
    return texts("and").join(parts)


def _daemons(overview: Overview, texts: Texts) -> str:
    if not overview.replicas:
        return texts("overview.no_daemon")
    each = (texts("overview.daemon", n=n, holder=holder) for holder, n in overview.replicas.items())
    return texts("overview.daemons", daemons=texts("and").join(each))


def progress_of(progress: Mapping[int, Sequence[Progress]], texts: Texts) -> dict[int, str]:
    """How far each buy order in force is, in words."""
    told = {}
    for id, parts in progress.items():
        done, workers = sum(part.done for part in parts), sum(part.workers for part in parts)
        told[id] = texts("order.progress" if done < workers else "order.progress_done", done=done, workers=workers)
    return told


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A budget of a policy, and what it leaves."""

    name: str
    limit: str
    committed: str
    left: str
    spent: bool  # it leaves no worker


def budget_rows(rooms: Sequence[Room], currency: str | None, texts: Texts, words: Wording) -> tuple[BudgetRow, ...]:
    """What each budget leaves."""
    rows = []
    for room in rooms:
        budget = room.budget
        of_money = budget.workers is None
        limit = Fraction(budget.money or 0) if of_money else budget.workers
        unit = (currency or "") if of_money else texts("policy.workers")
        per = "" if budget.per is None else words.span(budget.per)
        rows.append(
            BudgetRow(
                name=budget.shared or texts("policy.own_budget"),
                limit=texts("policy.budget_limit", limit=words.number(limit), unit=unit, per=per),
                committed=words.number(room.committed),
                left=texts("policy.budget_left", n=room.workers),
                spent=room.workers == 0,
            )
        )
    return tuple(rows)


__all__ = ["LOOKS", "BudgetRow", "Front", "Row", "budget_rows", "front", "load_of", "progress_of", "row_of"]
