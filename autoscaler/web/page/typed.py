"""What people type into the page's forms, read; what it asks for is judged where orders of every surface are."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from autoscaler.duration import parse_duration
from autoscaler.model import OverrideKind
from autoscaler.override import Asked, OrderProblem
from autoscaler.web.page.texts import Texts


@dataclass(frozen=True, slots=True)
class Given:
    """What stands in the form, as it was typed."""

    kind: str = ""
    workers: str = ""
    policies: str = ""
    end: str = ""
    reason: str = ""

    def read(self, author: str, now: datetime) -> tuple[Asked, tuple[OrderProblem, ...]]:
        """What is asked for by it, and what of it cannot be read.

        Where something cannot, something that can be stands for it, so that whoever judges the rest finds its problems.
        """
        problems = []
        kind = self.kind
        if kind not in {each.value for each in OverrideKind}:
            problems.append(OrderProblem("kind", "is missing", "choose what to order"))
            kind = OverrideKind.FREEZE
        workers = None
        if kind != OverrideKind.FREEZE:
            workers = whole_number(self.workers)
            if workers is None and self.workers.strip():
                problems.append(OrderProblem("workers", "is not a whole number", "write it in digits"))
                workers = 1
        lasts, until = _end(self.end, now)
        if lasts is None and until is None and self.end.strip():
            mend = "write 2h, 08:00 or 2026-06-01T08:00Z"
            problems.append(OrderProblem("end", "is neither a length nor an instant", mend))
            lasts = timedelta(minutes=1)
        policies = tuple(self.policies.replace(",", " ").split())
        return Asked(OverrideKind(kind), policies, workers, author, self.reason, lasts, until), tuple(problems)


def whole_number(text: str) -> int | None:
    """The number that somebody typed; None: it is none. A minus is taken, so that it can be refused by name."""
    text = text.strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with one field of a form."""

    field: str
    title: str
    says: str


def wrongs(problems: Iterable[OrderProblem], texts: Texts) -> tuple[Wrong, ...]:
    """The problems of an order, each with the title that its field has on the page."""
    return tuple(
        Wrong(each.field, texts(f"order.field.{each.field}"), f"{each.what}; {each.mend}") for each in problems
    )


def _end(text: str, now: datetime) -> tuple[timedelta | None, datetime | None]:
    """How long, or until when; (None, None): neither. A time of day is the next such one, in UTC if no zone is said."""
    text = text.strip()
    try:
        return parse_duration(text), None
    except ValueError:
        pass
    try:
        at = time.fromisoformat(text)
        zone = at.tzinfo or UTC
        today = datetime.combine(now.astimezone(zone).date(), at, zone)
        return None, today if today > now else today + timedelta(days=1)
    except ValueError:
        pass
    try:
        return None, datetime.fromisoformat(text)
    except ValueError:
        return None, None
