"""Months, as the cloud bills them: the same day of a later month, or its last day where that month has no such day."""

import calendar
from datetime import datetime


def add_months(at: datetime, months: int) -> datetime:
    """``at`` moved by whole calendar months; 31 January and one month is 28 or 29 February."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    return at.replace(year=year, month=month + 1, day=day)
