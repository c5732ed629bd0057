"""The daemon's HTTP surface; what it shows and asks for comes in through Protocols."""

from autoscaler.web.app import create_app
from autoscaler.web.health import Vitals
from autoscaler.web.server import ListenError, Server, serve

__all__ = ["ListenError", "Server", "Vitals", "create_app", "serve"]
