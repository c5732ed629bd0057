"""What every page has in common: templates, texts, the files beside it, who is signed in, and how a refusal looks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException

from autoscaler.charts import STYLE
from autoscaler.web import forms
from autoscaler.web.desk import Desk
from autoscaler.web.page.session import COOKIE, Session, Sessions
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.wording import Wording
from autoscaler.web.problem import Refusal

_MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


Id = Annotated[forms.Id, Path()]
"""The number of something in the ledger."""
Before = Annotated[forms.Id | None, Query()]
"""The number that a further page of a list begins below."""


class SignInFirst(Exception):
    """Nobody is signed in, and somebody has to be."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media: str
    path: str  # under which it is asked for; another content has another path, so that browsers may keep it


class Frame:
    """Renders pages, for whoever is signed in."""

    def __init__(self, desk: Desk, texts: Texts) -> None:
        self.texts = texts
        self.now = desk.clock
        self.sessions = Sessions(desk.access.tokens, desk.clock)
        self._reads_need_token = desk.access.reads_need_token
        self._files = _static_files()
        self._templates = _templates()

    def session(self, request: Request) -> Session | None:
        """Who is signed in."""
        cookie = request.cookies.get(COOKIE)
        return None if cookie is None else self.sessions.of(cookie)

    def reader(self, request: Request) -> None:
        """Let those in who may look. Raises SignInFirst."""
        if self._reads_need_token:
            self.signed_in(request)

    def signed_in(self, request: Request) -> str:
        """Whoever is signed in. Raises SignInFirst."""
        session = self.session(request)
        if session is None:
            raise SignInFirst
        return session.author

    def sent_here(self, request: Request) -> None:
        """Let forms in that a page of our own sent, by the browser's word. Raises Refusal.

        A cookie comes along with whatever makes a browser send a form here. SameSite=Strict keeps it from other sites,
        yet a neighbour on a subdomain is no other site. That a form names no other origin is not enough here: it has
        to name ours, or the browser has to say that it is ours.
        """
        if "origin" not in request.headers and request.headers.get("sec-fetch-site") != "same-origin":
            raise Refusal(403, self.texts("refused.elsewhere"))

    def author(self, request: Request) -> str:
        """In whose name a form orders something. Raises Refusal, SignInFirst."""
        self.sent_here(request)
        return self.signed_in(request)

    def page(
        self, request: Request, template: str, *, here: str = "", status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page made from a template. ``here``: the part of the site that it belongs to."""
        session = self.session(request)
        now = values.pop("now", None) or self.now()
        html = self._templates.get_template(template).render(
            t=self.texts,
            static=lambda name: self._files[name].path,
            here=here,
            now=now,
            w=Wording(self.texts, now),
            author=None if session is None else session.author,
            address=_address(request),
            again=request.method == "GET",  # the answer to a form is at no address that could be asked for again
            notice=self._notice(request),
            **values,
        )
        return HTMLResponse(html, status)

    def files(self) -> APIRouter:
        """The route of the style sheet, the script and the mark."""
        router = APIRouter()
        by_path = {file.path: file for file in self._files.values()}

        @router.get("/static/{name}")
        async def static(request: Request) -> Response:
            file = by_path.get(request.url.path)
            if file is None:
                raise HTTPException(404)
            return Response(file.content, media_type=file.media, headers=_FOR_EVER)

        return router

    def install(self, app: FastAPI, failures: Mapping[type[Exception], int]) -> None:
        """Answer every error of ``app`` by a page. ``failures``: exceptions whose text tells, and the status."""

        def refused(request: Request, status: int, says: str) -> Response:
            return self.page(request, "refused.html", status=status, says=says)

        @app.exception_handler(Refusal)
        def of_ours(request: Request, error: Refusal) -> Response:
            return refused(request, error.status, error.detail)

        @app.exception_handler(SignInFirst)
        def of_nobody(request: Request, _error: SignInFirst) -> Response:
            if request.method not in ("GET", "HEAD"):
                return refused(request, 401, self.texts("refused.sign_in"))
            return go("/sign-in?" + urlencode({"next": _address(request)}))

        @app.exception_handler(RequestValidationError)
        def of_an_address(request: Request, _error: RequestValidationError) -> Response:
            return refused(request, 404, self.texts("refused.address"))

        @app.exception_handler(HTTPException)
        def of_routing(request: Request, error: HTTPException) -> Response:
            return refused(request, error.status_code, self.texts("refused.address"))

        @app.exception_handler(Exception)
        def of_a_mistake(request: Request, _error: Exception) -> Response:
            return refused(request, 500, self.texts("refused.mistake"))

        for kind, status in failures.items():
            app.add_exception_handler(kind, lambda request, error, status=status: refused(request, status, str(error)))

    def _notice(self, request: Request) -> str | None:
        name = f"done.{request.query_params.get('done', '')}"
        return self.texts(name) if self.texts.has(name) else None


def local(path: str) -> str:
    """A path of our own, to go on to; for anything else the first page."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def go(path: str) -> RedirectResponse:
    """On to another page, to be asked for by GET."""
    return RedirectResponse(path, 303)


def _code(text: str) -> Markup:
    """A text whose parts between backticks are commands, as sentences of decisions have them."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts)
    )


def _address(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["code"] = _code
    return made


@cache
def _static_files() -> Mapping[str, _File]:
    found = {}
    for entry in (files(__package__) / "static").iterdir():
        content = entry.read_bytes()
        if entry.name == "page.css":
            content += STYLE.encode()
        stem, _, kind = entry.name.rpartition(".")
        digest = hashlib.sha256(content).hexdigest()[:12]
        found[entry.name] = _File(content, _MEDIA[kind], f"/static/{stem}.{digest}.{kind}")
    return found
