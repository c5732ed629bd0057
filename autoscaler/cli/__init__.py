"""The commands. What is heavy is imported inside a command, so that ``--help`` answers at once."""

import click

from autoscaler import __version__
from autoscaler.cli.ledger import ledger
from autoscaler.cli.orders import buy, override
from autoscaler.cli.policies import check, explain
from autoscaler.cli.purchases import purchases
from autoscaler.cli.records import decisions
from autoscaler.cli.simulation import simulate
from autoscaler.cli.standing import status
from autoscaler.cli.testing import test
from autoscaler.cli.work import demo, run


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment: AUTOSCALER_… and the cloud's own ALIBABA_CLOUD_… names. "
    "Exit status: 0 done, 1 the answer is no, 2 wrong usage or settings, 3 an outside system failed.",
)
@click.version_option(__version__, prog_name="autoscaler")
def main() -> None:
    """Adds prepaid edge workers to Alibaba Cloud ACK Edge clusters when load needs them.

    \b
    Try it without anything around it:      autoscaler demo
    Judge your policy files, and test them: autoscaler check policies; autoscaler test
    Ask what it would do now, and why:      autoscaler explain edge-beijing
    Run it:                                 autoscaler run
    See how it stands:                      autoscaler status
    Stop it:                                autoscaler override freeze '*' --for 2h --reason "…"
    """


for command in (run, demo, check, test, simulate, explain, status, decisions, purchases, override, buy, ledger):
    main.add_command(command)
