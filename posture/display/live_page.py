"""A page on this machine that shows images as they come.

OpenCV's headless build has no windows, and a browser reaches a machine without a screen through a tunnel too. The page
is served on 127.0.0.1 only, below a secret path, as JPEGs in one answer that does not end.
"""

from __future__ import annotations

import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

MOST_VIEWERS = 8
"""Maximum number of connections, each with a thread."""
QUALITY = 80
"""JPEG quality."""
PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Posture, live</title>
<style>body{margin:0;background:#111;display:grid;place-items:center;min-height:100vh}img{max-width:100%}</style>
<img src="live" alt="The camera, with the athletes and their actions"></html>"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LivePage:
    """A page at `url`. Use it in a `with` block, and call `show` with each image."""

    def __init__(self) -> None:
        self._server = _ImageServer(("127.0.0.1", 0), _ImageHandler)  # a free port
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._server.token}/"

    def show(self, image: np.ndarray) -> None:
        """Show the next image, uint8 RGB (H, W, 3), to all who look. It must not be changed afterwards."""
        self._server.publish(image)

    def __enter__(self) -> LivePage:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.publish(None)
        self._server.server_close()


class _ImageServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.token = secrets.token_urlsafe(24)
        self.changed = threading.Condition()
        self.image: np.ndarray | None = None
        self.number = 0
        self._slots = threading.BoundedSemaphore(MOST_VIEWERS)

    def publish(self, image: np.ndarray | None) -> None:
        """Give an image to all viewers; None ends their answers."""
        with self.changed:
            self.image, self.number = image, self.number + 1
            self.changed.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a viewer who left."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _ImageHandler(BaseHTTPRequestHandler):
    server: _ImageServer
    timeout = 30.0

    def do_GET(self) -> None:
        if self.path == f"/{self.server.token}/":
            self._head("text/html; charset=utf-8")
            self.wfile.write(PAGE)
        elif self.path == f"/{self.server.token}/live":
            self._head("multipart/x-mixed-replace; boundary=image")
            self._images()
        else:
            self.send_error(404)

    def _head(self, kind: str) -> None:
        self.send_response(200)
        for name, value in (HEADERS | {"Content-Type": kind}).items():
            self.send_header(name, value)
        self.end_headers()

    def _images(self) -> None:
        """Send each image that is the newest when the one before it is sent."""
        import cv2

        server, number = self.server, 0
        while True:
            with server.changed:
                server.changed.wait_for(lambda: server.number > number)  # noqa: B023
                number, image = server.number, server.image
            if image is None:
                return
            jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            size = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(f"--image\r\n{size}".encode() + jpeg + b"\r\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""
