"""The one place where the real time comes from; everybody else is handed a clock."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Now, as an aware instant in UTC."""
    return datetime.now(UTC)
