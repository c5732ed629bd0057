"""The web application: its routes put together, and the headers that every answer carries."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoscaler.web import api, exposition, health, problem
from autoscaler.web.desk import Desk
from autoscaler.web.guard import Guard
from autoscaler.web.page import create_page

# Nothing but our own files is loaded, nothing is framed by another site, guessed at or kept. Of the Referrer-Policy it
# is "same-origin" because with "no-referrer" a browser does not say of its own forms where they come from, either.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
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
    app.router.default = create_page(desk)  # wherever nobody else answers
    # Around the application, not added to it: its answer to an error of our own is made outside of what is added.
    return _Headers(Guard(app))


class _Headers:
    """Adds the security headers to every answer; one that says how long it may be kept has its word."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
