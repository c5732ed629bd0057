"""The commands on the ledger itself: copies of it, whether it is whole, and what a person says of a restored one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from autoscaler.cli.author import author_option, reason_option
from autoscaler.cli.failure import Exit, fail, outside_systems, settings_or_fail
from autoscaler.cli.output import WrittenFile, instant, json_line, json_option, print_json, print_table
from autoscaler.cli.records import ledger_to_change, ledger_view

if TYPE_CHECKING:
    from autoscaler.ledger import SqlLedger
    from autoscaler.model import Restoral


@click.group(short_help="Copy, verify and export the ledger; say what only a person knows of a restored one.")
def ledger() -> None:
    """Copy, verify and export the ledger; say what only a person knows of a restored one."""


@ledger.command(short_help="Copy a ledger in SQLite to a new file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Copy a ledger in SQLite to a new FILE, whole and of one moment, also while the daemon works.

    The copy says of itself that it is one: a daemon that is started on it buys nothing until what it may lack can no
    longer be on its way. Nothing is overwritten. Of a ledger in PostgreSQL pg_dump makes copies.

    \b
    Example:
      autoscaler ledger backup /backup/ledger-$(date +%F).db
    """
    url = settings_or_fail().ledger().get_secret_value()

    from autoscaler.clock import utc_now
    from autoscaler.ledger import back_up

    if not url.startswith("sqlite"):
        raise click.UsageError(_other_copies(url, file))
    WrittenFile().convert(file, None, None)  # only now: pg_dump may write it on another machine
    if file.exists():
        _exists(file)  # before the copy is made, which may take a while
    with outside_systems():
        try:
            back_up(url, file, utc_now())
        except FileExistsError:
            _exists(file)
    click.echo(f"Copied to {file}.")


def _other_copies(url: str, file: Path) -> str:
    """How a ledger in PostgreSQL is copied; without its password, which pg_dump takes from elsewhere."""
    import shlex

    from autoscaler.ledger import address_without_secrets

    command = shlex.join(["pg_dump", "--format=custom", f"--file={file}", address_without_secrets(url)])
    return (
        f"a ledger in PostgreSQL is copied by\n  {command}\nwhich takes the password from ~/.pgpass or PGPASSWORD. "
        "Such a copy bears no mark: once it is restored, and before a daemon is started, say\n"
        "  autoscaler ledger restored --reason TEXT"
    )


@ledger.command(short_help="Find out whether it is whole.")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def verify(file: Path | None, as_json: bool) -> None:
    """Read the whole ledger, or the one in FILE: its schema, pages and purchases, and each decision, decided again.

    It only reads, and the daemon may be up. Exit status 1 if anything is wrong.

    \b
    Examples:
      autoscaler ledger verify
      autoscaler ledger verify /backup/ledger-2026-06-01.db --json
    """
    from autoscaler.clock import utc_now
    from autoscaler.ledger import address_of_file
    from autoscaler.ledger import verify as verify_ledger

    url = settings_or_fail().ledger().get_secret_value() if file is None else address_of_file(file)
    with outside_systems():
        findings = verify_ledger(url, clock=utc_now)
    whole = all(finding.ok for finding in findings)
    if as_json:
        print_json({"whole": whole, "findings": findings})
    else:
        rows = [("ok" if finding.ok else "failed", finding.check, finding.says) for finding in findings]
        print_table(["", "CHECK", "FINDING"], rows, prose=True)
    if not whole:
        raise SystemExit(Exit.NO)


@ledger.command(short_help="Write all about money as JSON lines.")
@click.argument("file", required=False, type=WrittenFile())
def export(file: Path | None) -> None:
    """Write everything about money as JSON lines, to standard output or to a new FILE.

    Purchases and what became of each, orders of people and their ends, decisions, and what happened to the ledger; each
    line says its "type".

    \b
    Example:
      autoscaler ledger export | jq 'select(.type == "purchase") | [.id, .asked, .state]'
    """
    import sys

    with ledger_view() as view:
        try:
            into = nullcontext(sys.stdout) if file is None else file.open("x", encoding="utf-8")
        except FileExistsError:
            assert file is not None
            _exists(file)
        except OSError as error:
            fail(Exit.OUTSIDE, f"{file} cannot be written: {error.strerror}")
        with into as lines:
            for kind, values in view.export():
                lines.write(json_line({"type": kind, **values}) + "\n")
            if file is not None:
                lines.flush()
                os.fsync(lines.fileno())


@ledger.command(short_help="Say that it was restored from a copy.")
@reason_option
@author_option
def restored(reason: str, author: str) -> None:
    """Say that the ledger was restored from a copy that cannot say so itself, before a daemon is started on it.

    That is so of a dump of PostgreSQL, of a disk's snapshot, and of a file copied by hand. Nothing is then bought until
    what it may lack can no longer be on its way.

    \b
    Example:
      autoscaler ledger restored --reason "dump of 03:00, the server's disk is lost"
    """
    from autoscaler.clock import utc_now
    from autoscaler.ledger import MarkName

    now = utc_now()
    with _to_say() as opened:
        opened.mark(MarkName.RESTORED, now, reason, author)
    click.echo(
        f"The ledger counts as restored at {instant(now)}. For each cluster nothing is bought until what was bought "
        "since it was copied can no longer be on its way, or until `autoscaler ledger reviewed`."
    )


@ledger.command(short_help="Say that a restored one lacks nothing that matters.")
@reason_option
@author_option
def reviewed(reason: str, author: str) -> None:
    """Say that a restored ledger, or one begun anew, lacks nothing that matters. Purchases go on at once.

    Look first at the orders in the billing centre since the copy was made: their tasks must be over and their workers
    listed. Their workers count, their money is in no budget. End `buy` orders that were served; freezes and caps given
    since are forgotten.

    \b
    Example:
      autoscaler ledger reviewed --reason "no orders since the copy, by the billing centre"
    """
    from autoscaler.clock import utc_now
    from autoscaler.ledger import MarkName

    now = utc_now()
    with ledger_to_change() as opened:
        restoral = opened.restoral(now)
        if restoral is None:
            fail(Exit.NO, "the ledger was not restored, or was reviewed since: it holds nothing back for that")
        opened.take_up(now)
        opened.mark(MarkName.REVIEWED, now, reason, author)
    click.echo(f"Noted: the ledger {_what(restoral)} lacks nothing that matters. Purchases go on.")


@contextmanager
def _to_say() -> "Iterator[SqlLedger]":
    """The ledger, brought to the newest schema: what is said must be in it before a daemon opens it."""
    url = settings_or_fail().ledger().get_secret_value()

    from autoscaler.clock import utc_now
    from autoscaler.ledger import LedgerOutdated, open_ledger, view_ledger

    with outside_systems():
        try:
            view_ledger(url, clock=utc_now).close()  # fails where there is none: a person's word begins no ledger
        except LedgerOutdated:
            """It is updated by being opened."""
        opened = open_ledger(url, clock=utc_now)
        try:
            yield opened
        finally:
            opened.close()


def _what(restoral: "Restoral") -> str:
    return f"{'begun' if restoral.begun else 'restored'} at {instant(restoral.at)}"


def _exists(file: Path) -> NoReturn:
    fail(Exit.USAGE, f"{file} is there already, and this overwrites nothing: name a new file")
