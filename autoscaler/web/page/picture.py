"""A policy's last day as a chart: workers wanted, serving and in flight, its purchases as marks, orders as bands."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from autoscaler.charts import Band, Curve, Mark, chart
from autoscaler.model import Override, Purchase, PurchaseState
from autoscaler.web.desk import Sample
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.wording import Wording

DAY = timedelta(hours=24)
# So long without a sample nobody evaluated, or nobody could count the workers: the curve has a hole there.
_HOLE = timedelta(minutes=3)
_WIDE, _NARROW = (1180, 240), (360, 200)


@dataclass(frozen=True, slots=True)
class Picture:
    """The same chart for a screen and for a phone."""

    wide: Markup
    narrow: Markup


def picture(
    samples: Sequence[Sample],
    purchases: Iterable[Purchase],
    overrides: Iterable[Override],
    now: datetime,
    texts: Texts,
    words: Wording,
) -> Picture:
    """The chart of the day up to ``now``."""
    start_at = now - DAY
    whole = list(_with_holes(samples, now))

    def points(value: Callable[[Sample], float | None]) -> list[tuple[datetime, float | None]]:
        return [(at, None if sample is None else value(sample)) for at, sample in whole]

    curves = [
        Curve(
            "flight", points(lambda s: None if s.supply is None else s.supply.serving + s.supply.in_flight), True, True
        ),
        Curve("serving", points(lambda s: None if s.supply is None else s.supply.serving), True, True),
        Curve("wanted", points(lambda s: s.wanted), True),
    ]
    bands = [
        Band("ordered", max(order.starts_at, start_at), min(_ended(order), now), _order_says(order, texts))
        for order in overrides
        if order.starts_at < now and _ended(order) > start_at
    ]
    marks = [
        Mark(_look(purchase), at, _purchase_says(purchase, at, texts, words))
        for purchase in purchases
        if (at := purchase.sent_at or purchase.reserved_at) >= start_at
    ]

    def drawn(size: tuple[int, int]) -> Markup:
        width, height = size
        label = _label(samples, len(marks), texts)
        drawing = chart(
            curves,
            start_at=start_at,
            end_at=now,
            label=label,
            bands=bands,
            marks=marks,
            width=width,
            height=height,
        )
        return Markup(drawing)  # the chart has escaped every text in it

    return Picture(drawn(_WIDE), drawn(_NARROW))


def _with_holes(samples: Sequence[Sample], now: datetime) -> Iterator[tuple[datetime, Sample | None]]:
    before: datetime | None = None
    for sample in samples:
        if before is not None and sample.at - before > _HOLE:
            yield before + _HOLE, None
        yield sample.at, sample
        before = sample.at
    if before is not None and now - before <= _HOLE:
        yield now, samples[-1]  # a value holds until the next one


def _ended(order: Override) -> datetime:
    return order.ends_at if order.ended_at is None else min(order.ends_at, order.ended_at)


def _look(purchase: Purchase) -> str:
    return "unclear" if purchase.state is PurchaseState.UNKNOWN else "bought"


def _order_says(order: Override, texts: Texts) -> str:
    kind = texts(f"order.kind.{order.kind.value}")
    workers = "" if order.workers is None else f" {order.workers}"
    return texts("policy.band", kind=kind + workers, author=order.author, reason=order.reason)


def _purchase_says(purchase: Purchase, at: datetime, texts: Texts, words: Wording) -> str:
    state = texts(f"purchase.state.{purchase.state.value}")
    return texts("policy.mark", id=purchase.id, n=purchase.asked, state=state, at=words.clock(at))


def _label(samples: Sequence[Sample], purchases: int, texts: Texts) -> str:
    """What the chart shows, for those who cannot see it: where the day began, its most and where it ended."""
    serving = [sample.supply.serving for sample in samples if sample.supply is not None]
    wanted = [sample.wanted for sample in samples if sample.wanted is not None]
    if not serving:
        return texts("policy.chart_empty")
    return texts(
        "policy.chart",
        first=serving[0],
        last=serving[-1],
        least=min(serving),
        most=max(serving),
        wanted=max(wanted, default=0),
        purchases=purchases,
    )
