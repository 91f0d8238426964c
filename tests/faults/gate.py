"""A relay in front of an HTTP server on this machine, with which the network between can be broken.

It is a process of its own, `python -m tests.faults.gate PORT`: a library that waits for an answer may keep Python's
other threads waiting too.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")


@dataclass
class Link:
    """A connection, on both sides of the gate."""

    client: socket.socket
    server: socket.socket
    ended: threading.Barrier = field(init=False)
    lost: bool = False
    """What the server answers does not arrive."""

    def __post_init__(self) -> None:
        self.ended = threading.Barrier(2, action=self.close)

    def close(self) -> None:
        for end in (self.client, self.server):
            end.close()

    def cut(self) -> None:
        """Reset it, whatever was still to be sent, and wake the threads that pass."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)


class Gate:
    """A relay to the port `target` of loopback that listens at `port`. Close it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.gate", str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.port: int = self._ask("port")

    def shut(self) -> None:
        """Break what is under way, and refuse what comes, as a server does that is gone."""
        self._ask("shut")

    def open(self) -> None:
        self._ask("open")

    def lose(self, beginning: str) -> None:
        """Let the answer to the next request that begins so be lost, and the connection with it."""
        self._ask("lose", beginning)

    def losing(self) -> bool:
        """Whether that is still to come."""
        return bool(self._ask("lose"))

    def requests(self) -> list[str]:
        """The first line of every request that came through."""
        return self._ask("requests")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, *words: str) -> Any:
        with self._lock:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


class Relay:
    """What the process does."""

    def __init__(self, target: int) -> None:
        self._target, self.port = target, 0
        self.requests: list[str] = []
        self.lose = ""
        self._links: list[Link] = []
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for link in self._links:
            link.cut()
        self._links = []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link = Link(listener.accept()[0], socket.create_connection(("127.0.0.1", self._target)))
            except OSError:
                return
            self._links.append(link)
            for passing in (self._ask, self._answer):
                threading.Thread(target=self._pass, args=(link, passing), daemon=True).start()

    def _pass(self, link: Link, passing: Callable[[Link], None]) -> None:
        with contextlib.suppress(OSError):
            passing(link)
        link.ended.wait()

    def _ask(self, link: Link) -> None:
        while data := link.client.recv(1 << 16):
            if data.startswith(METHODS):
                line = data.partition(b"\r\n")[0].decode(errors="replace")
                self.requests.append(line)
                if self.lose and line.startswith(self.lose):
                    self.lose, link.lost = "", True
            link.server.sendall(data)
        link.server.shutdown(socket.SHUT_WR)

    def _answer(self, link: Link) -> None:
        while data := link.server.recv(1 << 16):
            if link.lost:
                link.cut()
            link.client.sendall(data)
        link.client.shutdown(socket.SHUT_WR)


def main(target: int) -> None:
    relay = Relay(target)
    for line in sys.stdin:
        word, *rest = json.loads(line)
        if rest:
            setattr(relay, word, *rest)
        value = getattr(relay, word)
        print(json.dumps(value() if callable(value) else value), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
