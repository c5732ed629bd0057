"""The web application: its routes put together, and the headers that every answer carries."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoscaler.web import api, exposition, health, problem
from autoscaler.web.desk import Desk
from autoscaler.web.guard import Guard

# Nothing is loaded from another host, framed by another site, guessed at or kept.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(vitals: health.Vitals, registry: CollectorRegistry, desk: Desk) -> ASGIApp:
    """The application, for ``serve`` or a test client.

    Args:
        vitals: how the daemon is, for /healthz and /readyz.
        registry: what /metrics shows.
        desk: what people on call are served from.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    problem.install(app, desk.failures)
    app.include_router(health.routes(vitals))
    app.include_router(exposition.routes(registry))
    app.mount(api.PATH, api.create_api(desk))
    # Around the application, not added to it: its answer to an error of our own is made outside of what is added.
    return _Headers(Guard(app))


class _Headers:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
