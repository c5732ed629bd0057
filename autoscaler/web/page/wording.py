"""Instants, lengths and numbers as people read them, in the texts' own words."""

from datetime import datetime, timedelta
from fractions import Fraction

from autoscaler.duration import format_duration
from autoscaler.web.page.texts import Texts

# What matters of a length at that length: nobody counts the seconds of a day.
_GRAINS = (
    (timedelta(weeks=1), timedelta(days=1)),
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(hours=1), timedelta(minutes=1)),
    (timedelta(0), timedelta(seconds=1)),
)


class Wording:
    """Words of one page, whose time is ``now``."""

    def __init__(self, texts: Texts, now: datetime) -> None:
        self._texts = texts
        self._now = now

    def span(self, length: timedelta) -> str:
        """How long: ``12s``, ``3m20s``, ``2h5m``, ``3d4h``."""
        length = max(length, timedelta(0))
        grain = next(grain for least, grain in _GRAINS if length >= least)
        return format_duration(length // grain * grain)

    def age(self, at: datetime) -> str:
        """How long an instant is past, or how long it is to come."""
        return self.span(abs(self._now - at))

    def ago(self, at: datetime) -> str:
        """How far an instant is from now: ``3m20s ago``, ``in 2h5m``."""
        return self._texts("ago" if at <= self._now else "in", span=self.age(at))

    def clock(self, at: datetime) -> str:
        """The time of day, with the day where it is not today."""
        return at.strftime("%H:%M:%SZ" if at.date() == self._now.date() else "%Y-%m-%d %H:%M:%SZ")

    def instant(self, at: datetime) -> str:
        """The day and the time."""
        return at.strftime("%Y-%m-%d %H:%M:%SZ")

    def number(self, number: Fraction | int | None) -> str:
        """A number to three places, its thousands apart."""
        if number is None:
            return self._texts("none")
        return f"{float(number):,.3f}".rstrip("0").rstrip(".")
