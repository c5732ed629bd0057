"""Refusals in every shape the cloud has been seen to send.

The gateway writes ``Code`` and ``Message``, the service behind it ``code`` and ``message``; proxies on the way
answer in plain text, XML, HTML or with nothing at all.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from xml.sax.saxutils import escape


class Shape(StrEnum):
    """How the body of an answer is written."""

    JSON_UPPER = "json_upper"
    JSON_LOWER = "json_lower"
    TEXT = "text"
    XML = "xml"
    HTML = "html"
    EMPTY = "empty"


class Refusal(Exception):
    """The cloud declines a request: nothing is sold."""

    def __init__(self, status: int, code: str, message: str, shape: Shape = Shape.JSON_LOWER) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.shape = shape


def refusal_body(shape: Shape, *, status: int, code: str, message: str, request_id: str) -> tuple[str, bytes]:
    """Content type and bytes of a refusal."""
    match shape:
        case Shape.JSON_UPPER:
            upper = {"RequestId": request_id, "HostId": "cs.aliyuncs.com", "Code": code, "Message": message}
            return json_body(upper)
        case Shape.JSON_LOWER:
            return json_body({"code": code, "message": message, "requestId": request_id, "status": status})
        case Shape.TEXT:
            return "text/plain; charset=utf-8", f"code={code or status}, message={message}".encode()
        case Shape.XML:
            return xml_body({"RequestId": request_id, "Code": code, "Message": message}, root="Error")
        case Shape.HTML:
            page = f"<html><head><title>{status}</title></head><body><h1>{escape(message)}</h1></body></html>"
            return "text/html", page.encode()
        case Shape.EMPTY:
            return "text/plain", b""


def json_body(document: Mapping[str, object]) -> tuple[str, bytes]:
    """Content type and bytes of a JSON document."""
    return "application/json; charset=utf-8", json.dumps(document, ensure_ascii=False).encode()


def xml_body(document: Mapping[str, object], *, root: str = "Response") -> tuple[str, bytes]:
    """Content type and bytes of the same document for a client that did not ask for JSON."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>{_xml(root, document)}'
    return "text/xml;charset=utf-8", text.encode()


def _xml(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return f"<{name}>{''.join(_xml(str(key), each) for key, each in value.items())}</{name}>"
    if isinstance(value, list | tuple):
        return "".join(_xml(name, each) for each in value)
    text = json.dumps(value) if not isinstance(value, str) else value
    return f"<{name}>{escape(text)}</{name}>"
