"""The edge cloud: whole looks at a cluster, the fate of a task, and the purchase of workers.

`client` sends, `reads` makes values of what it is told, `refusals` says what an answer to a purchase means; `imagined`
is the cloud of a dry run.
"""

from autoscaler.cloud.client import KEPT_FOR, POLL_INTERVAL, Cloud
from autoscaler.cloud.imagined import ImaginedCloud

__all__ = ["KEPT_FOR", "POLL_INTERVAL", "Cloud", "ImaginedCloud"]
