"""A web server that sends MPEG-TS as cameras and relays do: without a length, and it may hang up in the middle."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from posture.data.decode.video import write_video


def transport_stream(frames, *, fps=25) -> bytes:
    """Return frames uint8 (H, W, 3) as H.264 in MPEG-TS, a keyframe each second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.ts"
        write_video(path, frames, fps=fps, keyframe_every=fps)
        return path.read_bytes()


@contextmanager
def live_server(*connections: bytes, paced: float = 0.0) -> Iterator[str]:
    """Yield an address. Each connection gets the next of `connections`; after them, connections are refused.

    `paced` is the time over which each is sent; a reader keeps to the time stamps if it is sent faster.
    """
    waiting = list(connections)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not waiting:
                self.send_error(503)
                return
            content = waiting.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            size = max(188, len(content) // 50)
            for at in range(0, len(content), size):
                self.wfile.write(content[at : at + size])
                time.sleep(paced / 50)

        def log_message(self, *arguments) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stream.ts"
    finally:
        server.shutdown()
        server.server_close()
