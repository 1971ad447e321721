"""Who may reach the page: this machine, and only who holds the key of this launch.

The terminal prints an address with the key in it. The first visit turns it into a cookie that no
script can read and no other site can send; after that the address bar shows the key no more.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from markupsafe import Markup

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/healthz",)
KEY_PARAMETER = "key"
_COOKIE = "tuning-studio"
_HARMLESS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; "
        # What Gradio's own front end needs; every text of a person is escaped before it gets there.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def new_key() -> str:
    """Draw the key of a launch.

    Returns:
        Text that fits an address.
    """
    return secrets.token_urlsafe(24)


class Guard:
    """Stands before every route: checks Host, Origin and key, and sets the safety headers."""

    def __init__(self, app: App, *, key: str, hosts: Iterable[str], port: int) -> None:
        """Wrap an application.

        Args:
            app: what is guarded.
            key: of this launch; empty: everybody on this machine may come in.
            hosts: names under which this machine is reached.
            port: where it listens; part of the cookie's name, for one browser knows one cookie
                of a name, whatever the port.
        """
        self._app, self._key = app, key
        self._hosts = {f"{host}:{port}" for host in hosts}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"{_COOKIE}-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not.

        Args:
            scope: of the request.
            receive: gives its body.
            send: takes the answer.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            status, title, text = refusal
            await _answer(_with_headers(send), status, title, text)
            return
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and self._key:
            given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(KEY_PARAMETER, "")
            if given and self._is_key(given):
                await self._let_in(scope, send)
                return
            if not self._is_key(_cookie(headers, self._cookie)):
                await _answer(_with_headers(send), 403, "This page needs its key", _NO_KEY)
                return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        """Refuse what another site could have made the browser send."""
        if scope["type"] != "http":
            return 403, "Not offered", "The studio speaks plain HTTP only."
        if headers.get(b"host", b"").decode("latin-1") not in self._hosts:
            return 400, "Unknown host", "Open the studio under the address in the terminal."
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["method"] not in _HARMLESS and origin and origin not in self._origins:
            return 403, "Another site asked", "Only the studio's own page may do this."
        return None

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._key.encode())

    async def _let_in(self, scope: Scope, send: Send) -> None:
        """Keep the key in a cookie and take it out of the address."""
        rest = [
            (name, value)
            for name, value in parse_qsl(scope["query_string"].decode("latin-1"))
            if name != KEY_PARAMETER
        ]
        target = scope["path"] + ("?" + urlencode(rest) if rest else "")
        cookie = f"{self._cookie}={self._key}; HttpOnly; SameSite=Strict; Path=/"
        # A redirect would come without the cookie where another program opened the address, for
        # browsers hold back strict cookies then; a page that goes on by itself does not.
        await _answer(
            _with_headers(send, ("set-cookie", cookie)), 200, "Opening the studio",
            "One moment.", go_to="/" + target.lstrip("/"),
        )  # fmt: skip


_NO_KEY = (
    "Open the address that the terminal printed when the studio started: it ends in ?key=…. "
    "After a restart there is a new one; your projects are all still there."
)


def _cookie(headers: dict[bytes, bytes], name: str) -> str:
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send, *more: tuple[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = (*_HEADERS.items(), *more)
            kept = [(n, v) for n, v in message.get("headers", []) if n.decode() not in _HEADERS]
            message["headers"] = kept + [(n.encode(), v.encode("latin-1")) for n, v in ours]
        await send(message)

    return sending


async def _answer(send: Send, status: int, title: str, text: str, *, go_to: str = "") -> None:
    onward = Markup('<meta http-equiv="refresh" content="0;url={}">').format(go_to) if go_to else ""
    page = Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{0}</title>{2}'
        '<meta name="viewport" content="width=device-width"><style>body{{font:18px/1.6 system-ui;'
        "margin:12vh auto;max-width:34rem;padding:0 1rem;color-scheme:light dark}}</style></head>"
        "<body><h1>{0}</h1><p>{1}</p></body></html>"
    ).format(title, text, onward)
    body = page.encode()
    start = {
        "type": "http.response.start", "status": status,
        "headers": [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"),
                    (b"content-length", str(len(body)).encode())],
    }  # fmt: skip
    await send(start)
    await send({"type": "http.response.body", "body": body})
