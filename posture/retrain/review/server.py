"""The page of `posture review`, for one person on this machine.

The server listens on 127.0.0.1 only, below a secret path. It takes answers only as JSON and from the page itself:
another site in the person's browser can neither read anything here (its requests have another Host or Origin) nor send
an answer. At most MOST_CONNECTIONS are held: if there are more, those that have waited longest without knowing the path
are dropped.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import io
import json
import secrets
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from posture.display import html
from posture.errors import InputError
from posture.retrain.review.questions import Review

LONGEST_REQUEST = 10_000
"""Maximum bytes of an answer."""
LONGEST_HEAD = 32_768
"""Maximum bytes of a request line and its headers."""
MOST_CONNECTIONS = 32
"""Maximum number of connections, each with a thread; a browser opens six."""
WAITING_SECONDS = 30.0
"""Time limit for a connection to complete its request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ReviewServer(ThreadingHTTPServer):
    """Server of one review at `url`. `port` 0 takes a free one. Raises InputError if the port is taken."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, review: Review, *, port: int = 0) -> None:
        self.review, self.token = review, secrets.token_urlsafe(24)
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._waiting: dict[socket.socket, float] = {}  # time since when, the longest first
        self._changing = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: cannot be listened on ({error}); leave it out for a free one") from None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def wait_for(self, connection: socket.socket) -> None:
        """Note that a connection has not sent a complete request with the token since its last; it may be dropped."""
        with self._changing:
            self._waiting[connection] = time.monotonic()

    def hear(self, connection: socket.socket) -> None:
        """Note that a connection is being answered."""
        with self._changing:
            self._waiting.pop(connection, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread; if none is free, take that of the connection that has waited longest."""
        if not self._slots.acquire(blocking=False):
            self._drop_waiting(at_most=1)
            if not self._slots.acquire(timeout=1.0):
                return self.shutdown_request(request)
        self.wait_for(request)
        return super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer until the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.hear(request)
            self._slots.release()

    def service_actions(self) -> None:
        """Drop connections that have waited too long, even if they send a byte now and then; called twice a second."""
        self._drop_waiting(before=time.monotonic() - WAITING_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a broken connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _drop_waiting(self, *, before: float = float("inf"), at_most: int = MOST_CONNECTIONS) -> None:
        with self._changing:
            chosen = [connection for connection, since in self._waiting.items() if since < before][:at_most]
            for connection in chosen:
                del self._waiting[connection]
                with contextlib.suppress(OSError):  # it has ended by itself
                    connection.shutdown(socket.SHUT_RDWR)  # its thread notices when it reads or writes


class _Lines(io.BufferedReader):
    """Stream of a client; the lines of a request may have `left` bytes in total."""

    left = 0

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(self.left + 1)
        self.left -= len(line)
        if self.left < 0:
            raise LineTooLong("request line or headers")
        return line


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = 60.0

    def setup(self) -> None:
        super().setup()
        self.rfile = _Lines(self.rfile.detach())

    def handle_one_request(self) -> None:
        self.server.wait_for(self.connection)
        self.rfile.left = LONGEST_HEAD
        try:
            super().handle_one_request()
        except LineTooLong:  # of the first line; of headers it is answered already
            self.requestline = self.request_version = self.command = ""
            self.close_connection = True
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def do_GET(self) -> None:
        # neither a body nor another request is read
        self.close_connection |= "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        what = self._asked()
        if what == "":
            self._send(html.render("review.html").encode(), "text/html; charset=utf-8")
        elif what == "review.js":
            self._send((Path(html.FOLDER) / "review.js").read_bytes(), "text/javascript; charset=utf-8")
        elif what == "questions":
            self._send_json(self.server.review.describe())
        elif what is not None and what.startswith("images/") and what[7:].isdecimal() and len(what) < 20:
            try:
                self._send(self.server.review.images(int(what[7:])), "application/json")
            except InputError as error:
                self._send_json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        else:
            self._send_json({"error": "nothing here"}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if (
            not length.isdecimal()
            or len(length) > 9
            or int(length) > LONGEST_REQUEST
            or "Transfer-Encoding" in self.headers
        ):
            self.close_connection = True  # what follows is not read
            return self._send_json({"error": "an answer is short"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(int(length))
        if self._asked() != "answer":
            return self._send_json({"error": "nothing here"}, HTTPStatus.NOT_FOUND)
        if self.headers.get_content_type() != "application/json" or self.headers.get("Origin") not in self._own():
            return self._send_json({"error": "answers come from the page itself"}, HTTPStatus.FORBIDDEN)
        try:
            answer = json.loads(body)
            if not isinstance(answer, dict):
                raise InputError("an answer is an object")
            self.server.review.answer(answer.get("question"), answer.get("state"), answer.get("label"))
        except (InputError, ValueError, RecursionError) as error:
            return self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return self._send_json(self.server.review.describe())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: the path has the token."""

    def _own(self) -> tuple[str, ...]:
        return tuple(f"http://{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost"))

    def _asked(self) -> str | None:
        """Return the path below the token; None without the token, or if the browser asks for another host."""
        token, slash, what = self.path.removeprefix("/").partition("/")
        if f"http://{self.headers.get('Host')}" not in self._own() or not secrets.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            return None
        self.server.hear(self.connection)
        return what if slash else None

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
