"""A Prometheus server: readings and gaps for a list of questions.

`question` says what is asked and what an answer means, `client` asks.
"""

from autoscaler.prometheus.client import Prometheus, Server

__all__ = ["Prometheus", "Server"]
