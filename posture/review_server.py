"""The page of `posture review`, for one person on this machine.

It listens on 127.0.0.1 alone, below a path that nobody can guess. Answers are taken only as JSON and from the page itself: another site that the
person's browser shows can neither read anything here (its requests carry another Host or Origin) nor send an answer.
"""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from posture import pages
from posture.errors import InputError
from posture.review import Review

LONGEST_REQUEST = 10_000
"""Bytes."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
}


class ReviewServer(ThreadingHTTPServer):
    """Serves one review; `url` is where. `port` 0 takes a free one. Raises InputError where the port is taken."""

    daemon_threads = True

    def __init__(self, review: Review, *, port: int = 0) -> None:
        self.review, self.token = review, secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: cannot be listened on ({error}); leave it out for a free one") from None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = 60.0

    def do_GET(self) -> None:
        what = self._asked()
        if what == "":
            self._send(pages.render("review.html").encode(), "text/html; charset=utf-8")
        elif what == "review.js":
            self._send((Path(pages.FOLDER) / "review.js").read_bytes(), "text/javascript; charset=utf-8")
        elif what == "questions":
            self._send_json(self.server.review.describe())
        elif what is not None and what.startswith("pictures/") and what[9:].isdecimal():
            try:
                self._send(self.server.review.pictures(int(what[9:])), "application/json")
            except InputError as error:
                self._send_json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        else:
            self._send_json({"error": "nothing here"}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_REQUEST:
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
        """Nothing: the token stands in the path."""

    def _own(self) -> tuple[str, ...]:
        return tuple(f"http://{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost"))

    def _asked(self) -> str | None:
        """What is asked for below the token's path; None without it, and where the browser takes this for another host."""
        token, slash, what = self.path.removeprefix("/").partition("/")
        if f"http://{self.headers.get('Host')}" not in self._own() or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return None
        return what if slash else None

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
