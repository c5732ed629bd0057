"""The daemon's HTTP surface; what it shows and asks for comes in through Protocols."""

from autoscaler.web.access import Access
from autoscaler.web.app import create_app
from autoscaler.web.desk import Desk
from autoscaler.web.health import Vitals
from autoscaler.web.server import ListenError, Server, serve

__all__ = ["Access", "Desk", "ListenError", "Server", "Vitals", "create_app", "serve"]
