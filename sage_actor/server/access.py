"""Who may come in: Host, Origin, body size and token, checked before anything else looks at a request."""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["AccessGuard", "allowed_host"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset(("/", "/health", "/favicon.ico"))
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


def allowed_host(host: str, bound: str) -> bool:
    """Whether a Host header may reach us.

    Names are what DNS rebinding needs, so only ours pass; an IP address cannot be rebound.
    """
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("localhost", bound.lower(), socket.gethostname().lower())
    return True


class AccessGuard:
    """ASGI middleware. Everything but the page's shell and health needs ``Authorization: Bearer <token>``."""

    def __init__(self, app: Application, *, token: str, host: str, max_body: int) -> None:
        self._app = app
        self._token = token.encode()
        self._host = host
        self._max_body = max_body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        await self._app(scope, _bounded(receive, self._max_body), _with_headers(send))

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not allowed_host(host, self._host):
            return 403, f"host {host!r} is not this supervisor", "use its IP address or 'localhost'"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
            return 403, f"requests from pages of {origin.decode('latin-1')!r} are refused", "open the supervisor's own page"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_body:
            return (
                413,
                f"the body is larger than {self._max_body} bytes",
                "read big inputs from files inside the job instead of sending them",
            )
        if path in OPEN_PATHS:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given:
            return (
                401,
                "a token is needed",
                "send 'Authorization: Bearer TOKEN'; the supervisor's data directory holds it in the file 'token'",
            )
        if not secrets.compare_digest(given.strip(), self._token):
            return 401, "the token is wrong", "the token is in the file 'token' of the data directory the supervisor was started with"
        return None


def _bounded(receive: Receive, most: int) -> Receive:
    """Bodies without a length (chunked) are bounded while they arrive: the rest is reported as a lost connection."""
    seen = 0

    async def read() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > most else message

    return read


def _with_headers(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return forward


async def _answer(send: Send, status: int, error: str, next_step: str) -> None:
    body = json.dumps({"error": error, "next": next_step}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"), *_HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
