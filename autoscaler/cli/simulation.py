"""The command that simulates policies over recorded load: what they would have bought, when late, at what cost."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from autoscaler.cli.failure import outside_systems, settings_or_fail
from autoscaler.cli.output import WrittenFile, json_option

_LAST = timedelta(days=30)
_AGE = 1970, 5000  # years in which something may have been recorded


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from autoscaler.duration import parse_duration

        try:
            duration = parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return duration if duration else self.fail("0s is too short; write it like 1h30m", param, ctx)


class _Instant(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time; write it like 2026-06-01 or 2026-06-01T18:00:00Z", param, ctx)
        if not _AGE[0] <= at.year <= _AGE[1]:
            self.fail(f"{value!r} is not of our age", param, ctx)
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class _Share(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from autoscaler.policy.fields import read_percent

        share = read_percent(str(value))
        if share is None or share > 1:
            self.fail(f"{value!r} is not a share; write it like 5%", param, ctx)
        return float(share)


class _Join(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    name = "delay"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from autoscaler.duration import parse_duration
        from autoscaler.simulation import JoinDelay

        try:
            delays = [parse_duration(part.strip()) for part in str(value).split(",")]
            if len(delays) not in (1, 3):
                raise ValueError(f"{value!r} is not a delay; write 8m, or 5m,8m,20m: least, likely and most")
            return JoinDelay.fixed(delays[0]) if len(delays) == 1 else JoinDelay(*delays)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Try policies on recorded load.")
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@click.option(
    "--load", "file", metavar="FILE", type=click.Path(path_type=Path), help="Load from a CSV file, not Prometheus."
)
@click.option("--last", metavar="LENGTH", type=_Duration(), help="How far back load begins.  [default: 30d]")
@click.option("--from", "start_at", metavar="INSTANT", type=_Instant(), help="Load from then on.")
@click.option(
    "--to", "end_at", metavar="INSTANT", type=_Instant(), help="Load until then.  [default: now, or all of FILE]"
)
@click.option("--step", metavar="LENGTH", type=_Duration(), help="Time between evaluations.  [default: evaluate_every]")
@click.option(
    "--ready",
    metavar="N",
    type=click.IntRange(0, 100_000),
    help="Workers at the start.  [default: recorded, or the minimum]",
)
@click.option(
    "--set",
    "changes",
    metavar="CHANGES",
    multiple=True,
    help="A variant beside the policy as it is: limits.per_action=10, several changes by commas. Repeatable.",
)
@click.option("--join", metavar="LENGTH", type=_Join(), help="How long workers take to join: 8m, or least,likely,most.")
@click.option("--failing", metavar="SHARE", type=_Share(), default="0%", help="Workers that never join, like 5%.")
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=0, help="Seed of what is left to chance.  [default: 0]"
)
@click.option("--optimum", "seeks_optimum", is_flag=True, help="Compare with the cheapest that is never short.")
@click.option("--against-ledger", is_flag=True, help="Put beside it what the daemon did in that time.")
@click.option("--csv", "csv_file", metavar="FILE", type=WrittenFile(),
              help="Write the course over time, a row for each evaluation.")  # fmt: skip
@click.option("--report", "report_file", metavar="FILE", type=WrittenFile(),
              help="Write a page to look at, with charts: one HTML file.")  # fmt: skip
@json_option
def simulate(
    policies: tuple[str, ...],
    file: Path | None,
    last: timedelta | None,
    start_at: datetime | None,
    end_at: datetime | None,
    step: timedelta | None,
    ready: int | None,
    changes: tuple[str, ...],
    join: object,
    failing: float,
    seed: int,
    seeks_optimum: bool,
    against_ledger: bool,
    csv_file: Path | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Try policies on recorded load: what they would have bought, when that was late, and what it would have cost.

    The daemon's own rules decide over virtual time; nothing is bought and nothing is recorded. Load comes from each
    policy's own Prometheus, or from a CSV file with a time and a column for each check by its name (`ready` for the
    workers of then). A total is used as it is; of a mean per worker the load is the mean × the workers of then, shared
    by those that the simulation has. What was assumed is said.

    Several policies, or variants of one by --set, are put side by side. POLICY is a name, or the path of a file.
    Equal inputs and an equal --seed give equal results.

    \b
    Examples:
      autoscaler simulate edge-beijing
      autoscaler simulate edge-beijing --last 7d --set limits.per_action=10 --set "cooldown=5m, headroom=20%"
      autoscaler simulate drafts/edge-beijing.yaml --against-ledger --last 2d
      autoscaler simulate edge-beijing --load june.csv --ready 12 --report june.html
      autoscaler simulate edge-beijing --load june.csv --join 5m,8m,20m --failing 5% --seed 7 --json
    """
    if file is not None and last is not None:
        raise click.UsageError("--last is for Prometheus; of a file, --from and --to take a part")
    if last is not None and start_at is not None:
        raise click.UsageError("--last and --from both say where to begin: give one of them")
    if file is None:
        from autoscaler.clock import utc_now

        end_at = end_at or utc_now().replace(microsecond=0)
        start_at = start_at or end_at - (last or _LAST)
    if start_at is not None and end_at is not None and start_at >= end_at:
        raise click.UsageError("--from has to be before --to")

    from autoscaler.cli.history import Wanted
    from autoscaler.cli.simulation_data import print_simulations, write_course
    from autoscaler.cli.trial import Trial
    from autoscaler.logs import configure_logging
    from autoscaler.simulation import JoinDelay, Market

    assert join is None or isinstance(join, JoinDelay)
    settings = settings_or_fail()
    configure_logging(log_level="error")
    with outside_systems():
        trial = Trial.of(
            policies,
            changes,
            settings,
            file=file,
            wanted=Wanted(step, ready, start_at, end_at),
            market=Market(join=join, failing=failing, seed=seed),
            seeks_optimum=seeks_optimum,
            against_ledger=against_ledger,
        )
    if csv_file is not None:
        write_course(csv_file, trial)
    if report_file is not None:
        from autoscaler.cli.report import write_report

        write_report(report_file, trial)
    if as_json:
        print_simulations(trial)
    else:
        from autoscaler.cli.simulation_text import echo_trial

        echo_trial(trial)
        for kind, path in (("Course", csv_file), ("Report", report_file)):
            if path is not None:
                click.echo(f"\n{kind}: {path}")
