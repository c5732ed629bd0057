"""The commands that give orders: previewed, asked about before anything that buys, recorded, and answered.

They go into the ledger, whether the daemon is up or down; it obeys within two seconds, or once it runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoscaler.cli.author import author_option, reason_option
from autoscaler.cli.failure import Exit, fail, settings_or_fail
from autoscaler.cli.output import (
    ago,
    as_object,
    count,
    instant,
    json_option,
    print_json,
    print_table,
)
from autoscaler.cli.records import ID, ledger_to_change, ledger_view
from autoscaler.model import OverrideKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autoscaler.effects import Effect
    from autoscaler.ledger import Ledger
    from autoscaler.model import Override
    from autoscaler.orders import Orders, Placed, Preview, Progress
    from autoscaler.override import Asked
    from autoscaler.policy import Policy

Command = Callable[..., Any]

_OPTIONS = {"end": "--for or --until", "author": "--author", "reason": "--reason"}  # by the part of an order


def _length(_context: click.Context, _parameter: click.Parameter, text: str | None) -> timedelta | None:
    from autoscaler.duration import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _instant(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("write it as 2026-06-01T08:00Z, or with another offset such as +08:00") from None


def _order_options(command: Command) -> Command:
    """What every order needs: an end, a reason, an author."""
    for option in (
        json_option,
        author_option,
        reason_option,
        click.option("--until", callback=_instant, metavar="INSTANT", help="It ends then, such as 2026-06-01T08:00Z."),
        click.option(
            "--for",
            "lasts",
            callback=_length,
            metavar="LENGTH",
            help="It ends so long from now, such as 2h; this or --until.",
        ),
    ):
        command = option(command)
    return command


_policies = click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command(short_help="Buy so many workers, whatever the load.")
@_policies
@click.argument("workers", type=int, metavar="N")
@_yes
@_order_options
def buy(policies: tuple[str, ...], workers: int, **given: Any) -> None:
    """Buy N workers for a policy, or N for each of several, whatever the load.

    POLICY is a name, a glob or a label such as team=live. They are bought in portions of the policy's per_action,
    within its maximum and budgets; stabilization, cooldown and backoff are skipped. The order ends once all are bought,
    or by --for or --until; it is asked about after a preview.

    \b
    Examples:
      autoscaler buy edge-beijing 3 --for 2h --reason "derby tonight"
      autoscaler buy team=live 2 --until 2026-06-01T23:00+08:00 --reason "launch" --yes
    """
    _order(OverrideKind.BUY, policies, workers, **given)


@click.group(short_help="Freeze, floor or cap policies for a while; list and end orders.")
def override() -> None:
    """Freeze, floor or cap policies for a while; list and end orders.

    POLICY is a name, a glob (which holds for later policies too), a label such as team=live, or '*' for all. The
    strictest order holds: any freeze, the lowest cap, the highest floor, a cap over a floor. To relax one, end it.
    """


@override.command(short_help="Buy nothing.")
@_policies
@_order_options
def freeze(policies: tuple[str, ...], **given: Any) -> None:
    """Buy nothing for these policies until the order ends.

    \b
    Examples:
      autoscaler override freeze '*' --for 2h --reason "bill looks wrong"
      autoscaler override freeze edge-beijing --until 2026-06-01T08:00Z --reason "line is being mended"
    """
    _order(OverrideKind.FREEZE, policies, None, yes=True, **given)


@override.command(short_help="Keep at least so many workers.")
@click.argument("workers", type=int, metavar="N")
@_policies
@_yes
@_order_options
def floor(workers: int, policies: tuple[str, ...], **given: Any) -> None:
    """Keep at least N workers of each of these policies, whatever the load. It is asked about after a preview.

    \b
    Example:
      autoscaler override floor 12 edge-beijing --for 6h --reason "match day"
    """
    _order(OverrideKind.FLOOR, policies, workers, **given)


@override.command(short_help="Pay for at most so many workers.")
@click.argument("workers", type=int, metavar="N")
@_policies
@_order_options
def cap(workers: int, policies: tuple[str, ...], **given: Any) -> None:
    """Buy no worker beyond N paid ones for each of these policies.

    \b
    Example:
      autoscaler override cap 20 'edge-*' --for 12h --reason "budget talks"
    """
    _order(OverrideKind.CAP, policies, workers, yes=True, **given)


@override.command("list")
@click.option("--all", "past", is_flag=True, help="Those that have ended too.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many, with --all.")
@json_option
def list_overrides(past: bool, limit: int, as_json: bool) -> None:
    """List the orders in force, with the time that is left and how far those to buy are.

    \b
    Examples:
      autoscaler override list
      autoscaler override list --all --json | jq '.overrides[] | select(.author == "ana")'
    """
    from autoscaler.clock import utc_now
    from autoscaler.orders import progress

    now = utc_now()
    with ledger_view() as ledger:
        found = ledger.override_history(limit=limit) if past else ledger.overrides(now)
        far = progress(ledger, found)
    if as_json:
        rows = [as_object(order) | {"active": order.active(now), "progress": far.get(order.id, ())} for order in found]
        print_json({"overrides": rows})
    elif found:
        print_overrides(found, far, now)
    else:
        click.echo("No order has been given yet." if past else "No order is in force.")


@override.command("end", short_help="End an order early.")
@click.argument("id", type=ID)
@reason_option
@author_option
@json_option
def end_override(id: int, reason: str, author: str, as_json: bool) -> None:
    """End an order early; it stays in the history.

    \b
    Example:
      autoscaler override end 7 --reason "line is mended"
    """
    from autoscaler.ledger import NotFound

    with ledger_to_change() as ledger:
        try:
            ended = orders_over(ledger, ()).end(id, author, reason)
        except NotFound:
            fail(Exit.USAGE, f"there is no override {id}; see `autoscaler override list`")
    if as_json:
        print_json({"override": ended})
    else:
        click.echo(
            f"Order {id} ({_what(ended)} for {_whom(ended)}) was ended by {ended.ended_by}: {ended.ended_reason}."
        )


def print_overrides(found: "Sequence[Override]", far: "Mapping[int, tuple[Progress, ...]]", now: datetime) -> None:
    """Print a line for each order."""
    rows = [
        (str(order.id), _what(order) + _done(far.get(order.id, ())), _whom(order), _ends(order, now), order.author,
         order.reason)
        for order in found
    ]  # fmt: skip
    print_table(["ID", "ORDER", "POLICIES", "ENDS", "BY", "REASON"], rows, prose=True)


def policies_here() -> "tuple[Policy, ...]":
    """The policies that the settings' folder holds, as the settings let them be; none where it cannot be read."""
    from autoscaler.policy.files import load_policies

    settings = settings_or_fail()
    return tuple(
        policy.model_copy(update={"dry_run": policy.dry_run or settings.dry_run})
        for policy in load_policies(settings.policies).policies
    )


def orders_over(ledger: "Ledger", policies: "Sequence[Policy]") -> "Orders":
    """Where this command's orders go."""
    from autoscaler.clock import utc_now
    from autoscaler.orders import Orders

    longest = settings_or_fail().longest_override
    return Orders(ledger=ledger, policies=lambda: policies, clock=utc_now, longest=longest)


def _order(
    kind: OverrideKind,
    policies: tuple[str, ...],
    workers: int | None,
    *,
    lasts: timedelta | None,
    until: datetime | None,
    reason: str,
    author: str,
    yes: bool,
    as_json: bool,
) -> None:
    from autoscaler.clock import utc_now
    from autoscaler.override import Asked

    asked = Asked(kind, tuple(map(_selector, policies)), workers, author, reason, lasts, until)
    here = policies_here()
    with ledger_to_change() as ledger:
        orders = orders_over(ledger, here)
        with _refused():
            if not yes:
                _ask(orders.preview(asked), as_json)
            at_work = bool(ledger.holders())  # before: what can fail after it would hide that it was recorded
            placed = _place(orders, asked)
    if as_json:
        print_json(as_object(placed))
    else:
        _print_placed(placed, utc_now(), at_work)


def _place(orders: "Orders", asked: "Asked") -> "Placed":
    """Place an order, once although it is tried again: the ledger may have recorded it and could not say so."""
    import secrets

    from autoscaler.ledger import LedgerError

    key = secrets.token_urlsafe(18)
    try:
        return orders.place(asked, key)
    except LedgerError:
        try:
            return orders.place(asked, key)
        except LedgerError as error:
            mend = "It may have been recorded all the same: see `autoscaler override list` before you give it again."
            fail(Exit.OUTSIDE, f"{error}\n{mend}")


@contextmanager
def _refused() -> Iterator[None]:
    from autoscaler.override import OrderRefused

    try:
        yield
    except OrderRefused as error:
        said = [replace(problem, field=_OPTIONS.get(problem.field, problem.field)) for problem in error.problems]
        lines = "\n".join(f"  {problem}" for problem in said)
        fail(Exit.NO, f"this cannot be ordered, and nothing was changed:\n{lines}")


def _selector(text: str) -> str:
    path = Path(text)
    return path.stem if path.suffix in {".yaml", ".yml"} else text


def _ask(preview: "Preview", as_json: bool) -> None:
    """Show what an order would do, and go on only where a person says so."""
    import sys

    if as_json or not sys.stdin.isatty():
        raise click.UsageError("this may buy, and there is nobody to ask: say --yes")
    from autoscaler.clock import utc_now
    from autoscaler.strategy import number

    rows = [
        (effect.policy, effect.says, "; ".join(effect.waits) or "nothing")
        for effect in preview.effects
    ]  # fmt: skip
    print_table(["POLICY", "WHAT", "HELD BACK NOW BY"], rows, prose=True)
    order = preview.override
    money = " and ".join(f"{number(amount)} {currency}".rstrip() for currency, amount in preview.money)
    total = count(preview.workers, "worker") + (f", {money}" if money else "")
    total += f", and {preview.imagined} imagined by dry runs" if preview.imagined else ""
    click.echo(f"\nIn all: {total}. It ends {instant(order.ends_at)} ({ago(order.ends_at, utc_now())}).")
    if not click.confirm(f"Order {_what(order)} for {_whom(order)}?"):
        fail(Exit.NO, "nothing was ordered")


def _print_placed(placed: "Placed", now: datetime, at_work: bool) -> None:
    order = placed.override
    ends = f"until {instant(order.ends_at)} ({ago(order.ends_at, now)})"
    click.echo(f"Order {order.id}: {_what(order)} for {_whom(order)}, {ends}, by {order.author}: {order.reason}.")
    click.echo(_obeyed(placed.effects, at_work))
    for note in placed.notes:
        click.echo(f"  {note}")


def _obeyed(effects: "Sequence[Effect]", at_work: bool) -> str:
    whose = count(len(effects), "policy")
    if at_work:
        return f"It is for {whose} now, and obeyed within 2 s."
    return f"It is for {whose} now. No daemon is at work: it is obeyed once one runs."


def _what(order: "Override") -> str:
    return order.kind.value if order.workers is None else f"{order.kind.value} {order.workers}"


def _whom(order: "Override") -> str:
    return "all" if order.policies == ("*",) else ", ".join(order.policies)


def _done(progress: "Sequence[Progress]") -> str:
    """How far an order to buy is, for all its policies together."""
    if not progress:
        return ""
    done, asked = sum(each.done for each in progress), sum(each.workers for each in progress)
    return f" ({done} of {asked})" if done < asked else " (done)"


def _ends(order: "Override", now: datetime) -> str:
    if order.ended_at is not None:
        return f"ended {ago(order.ended_at, now)} by {order.ended_by}"
    return ago(order.ends_at, now)
