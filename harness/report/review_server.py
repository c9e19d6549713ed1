"""A page on the loopback interface that asks one person, once, and ends."""

from __future__ import annotations

import hmac
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl

from pipeline.errors import InputError

__all__ = ["Form"]

_LOOPBACK = "127.0.0.1"
_LARGEST, _MOST = 1 << 20, 1 << 26  # bytes of a form, and of one that is read to be refused
_STALL_S = 10.0
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}


class _Server(HTTPServer):
    """A server to whom a visitor who goes away in the middle is no error."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Let anything else through."""
        if not isinstance(sys.exception(), OSError):
            raise


class Form:
    """A form on the loopback interface under an address that nobody can guess.

    Whoever does not know the token of the address, sends another ``Host`` (a rebound name) or
    another ``Origin`` (a form of another page) is refused.

    Parameters
    ----------
    page : callable
        Makes the page from the path that the form goes to.
    accepted : callable
        Given the fields of a sent form; `InputError` says what is wrong and the form stays open,
        otherwise what it returns is shown and the server ends.
    port : int
        Zero for any that is free.
    """

    def __init__(
        self,
        page: Callable[[str], str],
        accepted: Callable[[Mapping[str, str]], str],
        port: int = 0,
    ) -> None:
        self._path = f"/{secrets.token_urlsafe(24)}/"
        self._page, self._accepted, self._done = page(self._path), accepted, False
        self._server = _Server((_LOOPBACK, port), self._handler())
        self._server.timeout = 1.0
        self._host = f"{_LOOPBACK}:{self._server.server_port}"

    @property
    def address(self) -> str:
        """Where the page is, with its token."""
        return f"http://{self._host}{self._path}"

    def serve(self, seconds: float) -> bool:
        """Answer requests until the form was accepted or time is over.

        Parameters
        ----------
        seconds : float, s
            How long to wait.

        Returns
        -------
        bool
            Whether the form was accepted.
        """
        until = time.monotonic() + seconds
        try:
            while not self._done and time.monotonic() < until:
                self._server.handle_request()
        finally:
            self._server.server_close()
        return self._done

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        form = self

        class Handler(BaseHTTPRequestHandler):
            """Requests of this form."""

            timeout = _STALL_S

            def do_GET(self) -> None:
                """Show the page."""
                if form._admitted(self):
                    _send(self, HTTPStatus.OK, form._page)

            def do_POST(self) -> None:
                """Take the form."""
                if form._admitted(self):
                    form._take(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                """Keep the address with its token out of logs."""

        return Handler

    def _admitted(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether a request comes from this page; a refusal is sent otherwise."""
        origin = request.headers.get("Origin")
        mine = request.headers.get("Host") == self._host
        if mine and origin in (None, f"http://{self._host}"):
            if hmac.compare_digest(request.path.encode(), self._path.encode()):
                return True
            _send(request, HTTPStatus.NOT_FOUND, "There is nothing here.")
        else:
            _send(request, HTTPStatus.FORBIDDEN, "This page answers its own address only.")
        return False

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        length = request.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST:
            _discard(request, int(length) if length.isdecimal() else 0)
            _send(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form has no sensible length.")
            return
        text = request.rfile.read(int(length)).decode("utf-8", "replace")
        try:
            said = self._accepted(dict(parse_qsl(text, max_num_fields=10_000)))
        except (InputError, ValueError) as err:
            _send(request, HTTPStatus.BAD_REQUEST, f"{err}. Go back and complete the form.")
            return
        self._done = True
        _send(request, HTTPStatus.OK, said)


def _discard(request: BaseHTTPRequestHandler, length: int) -> None:
    """Read what is refused, as far as that is bearable: who is still sending hears no answer."""
    left = min(length, _MOST)
    while left > 0 and request.rfile.read(min(left, _LARGEST)):
        left -= _LARGEST


def _send(request: BaseHTTPRequestHandler, status: HTTPStatus, text: str) -> None:
    """Send a page, or a sentence, which is escaped."""
    from markupsafe import escape

    page = text if text.startswith("<!DOCTYPE html>") else f"<!DOCTYPE html><p>{escape(text)}</p>"
    content = page.encode()
    request.send_response(status)
    for name, value in _HEADERS.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
