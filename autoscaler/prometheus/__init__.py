"""A Prometheus server: readings and gaps for a list of questions.

`question` says what is asked and what an answer means, `course` the same over a stretch of time, `client` asks.
"""

from autoscaler.prometheus.client import Prometheus, Server
from autoscaler.prometheus.course import Course

__all__ = ["Course", "Prometheus", "Server"]
