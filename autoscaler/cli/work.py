"""The commands that work: the daemon, and the demo that shows it at work."""

import click

from autoscaler.cli.failure import Exit, fail, outside_systems, settings_or_fail


@click.command()
@click.option("--init", "begin", is_flag=True, help="Begin to buy by a new ledger. Once.")
def run(begin: bool) -> None:
    """Run the daemon until SIGTERM; SIGHUP reloads the policies.

    Policies buy only where they say `dry_run: false` and AUTOSCALER_DRY_RUN is not true. With such a policy a ledger by
    which nothing was ever bought is refused, since a lost one has forgotten cooldowns, budgets and purchases of unknown
    outcome: say --init when it is new, or only dry runs used it.

    \b
    Examples:
      AUTOSCALER_DRY_RUN=true autoscaler run
      AUTOSCALER_PROMETHEUS_URL=http://prometheus:9090 autoscaler run --init
    """
    import os

    import structlog

    from autoscaler.daemon import Daemon, EmptyLedger, NoPolicies
    from autoscaler.logs import configure_logging
    from autoscaler.web import ListenError, create_app, serve
    from autoscaler.wiring import build

    settings = settings_or_fail()
    configure_logging(settings.log_format, settings.log_level)
    with outside_systems():
        parts = build(settings, os.environ)
        daemon = Daemon(parts)
        try:
            app = create_app(daemon, parts.registry, parts.desk())
            with serve(app, settings.listen.host, settings.listen.port) as web:
                structlog.get_logger(__name__).info("web.listening", url=web.url)  # port 0 takes any free one
                daemon.run(begin=begin)
        except (EmptyLedger, NoPolicies, ListenError) as error:
            fail(Exit.USAGE, str(error))


@click.command()
@click.option("--seconds", default=30, show_default=True, type=click.IntRange(20, 600), help="How long it shows.")
def demo(seconds: int) -> None:
    """Watch the daemon at work for half a minute: no root, no services, no account, nothing bought.

    The real daemon runs against a local edge cloud and a replayed Prometheus, through an hour of real load in which
    a site's requests rise sixfold. A minute of that load passes in half a second.
    """
    from autoscaler.demo import show

    raise SystemExit(show(seconds))
