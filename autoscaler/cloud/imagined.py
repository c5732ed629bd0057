"""The cloud of a dry run: it takes every purchase, and sells nothing."""

from pydantic import SecretStr

from autoscaler.model import Accepted, Purchase
from autoscaler.policy import WorkerSpec


class ImaginedCloud:
    """Answers as the cloud does on a good day. Its workers arrive after ``assumed_join``; see purchase.py."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Accepted:
        """Take the purchase; nobody hears of it."""
        return Accepted(task_id=f"imagined-{purchase.nonce}")
