"""How a command ends that could not do what it was asked: one clear text and the exit status of the contract."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from autoscaler.settings import Settings


class Exit(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    NO = 1  # an invalid policy, a failed test, a refused order; a hold is not a no
    USAGE = 2  # wrong usage or settings
    OUTSIDE = 3  # an outside system failed


def fail(status: Exit, message: str) -> NoReturn:
    """End the command with a text on standard error."""
    click.echo(f"Error: {message}", err=True)
    raise SystemExit(status)


def settings_or_fail() -> "Settings":
    """The settings of the environment, or every problem they have, told at once."""
    import os

    from autoscaler.settings import SettingsError, load_settings

    try:
        return load_settings(os.environ)
    except SettingsError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        fail(Exit.USAGE, f"the settings cannot be used:\n{lines}")


@contextmanager
def outside_systems() -> Iterator[None]:
    """Translate what outside systems raise into one line and exit status 3."""
    from autoscaler.ledger import LedgerError

    try:
        yield
    except LedgerError as error:
        fail(Exit.OUTSIDE, str(error))
