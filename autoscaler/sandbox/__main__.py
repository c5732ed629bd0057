"""Runs the sandbox cloud as a process of its own: ``python -m autoscaler.sandbox``.

Its URL is the first line on standard output; everything else is steered through ``/_sandbox/…``. It lives until it
gets SIGTERM or SIGINT, and what it sold is forgotten with it.
"""

import signal
import threading
from datetime import timedelta

import click

from autoscaler.sandbox.cloud import SandboxCloud
from autoscaler.sandbox.control import Control


@click.command()
@click.option("--port", default=0, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option("--join-delay", default=600.0, show_default=True, help="Seconds from a sale to a ready worker.")
@click.option("--list-delay", default=0.0, show_default=True, help="Seconds until the node list shows a worker.")
@click.option("--node-quota", default=100, show_default=True, help="Most nodes of a cluster.")
@click.option("--cluster", "clusters", multiple=True, metavar="ID=WORKERS", help="A cluster to begin with; repeatable.")
def main(port: int, join_delay: float, list_delay: float, node_quota: int, clusters: tuple[str, ...]) -> None:
    """A local edge cloud that sells workers for nothing.

    \b
    Example: python -m autoscaler.sandbox --port 8901 --join-delay 5 --cluster Cccfd68c474454665ace07efce924ab12=4
    """
    cloud = SandboxCloud(
        join_delay=timedelta(seconds=join_delay),
        list_delay=timedelta(seconds=list_delay),
        node_quota=node_quota,
        port=port,
    )
    cloud.steer_by(Control(cloud))
    for cluster in clusters:
        cluster_id, _, workers = cluster.partition("=")
        if not workers.isdecimal():
            raise click.BadParameter(f"{cluster!r} is not ID=WORKERS", param_hint="--cluster")
        cloud.add_cluster(cluster_id, workers=int(workers))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with cloud:
        click.echo(cloud.url)
        stop.wait()


if __name__ == "__main__":
    main()
