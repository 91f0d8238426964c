"""A relay in front of a server on this machine. Shut, it breaks every connection and refuses new ones, as a server does that is gone."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class Gate:
    """Listens on loopback at `port` and passes what comes to `target`, a port of loopback, while it is open."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self.requests: list[str] = []
        """The first line of every request that came through."""
        self.port = 0
        self.open()

    def open(self) -> None:
        """Begin to listen: at first on any free port, later on the same."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Break what is under way, and refuse what comes."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed, it is reset, whatever was still to be sent
                    end.shutdown(socket.SHUT_RDWR)  # wakes the threads that pass

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            pair = {client, server}
            with self._lock:
                self._sockets |= pair
            ended = threading.Barrier(2, action=lambda pair=pair: self._close(pair))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink, ended), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, ended: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if data.startswith((b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")):
                    self.requests.append(data.partition(b"\r\n")[0].decode(errors="replace"))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        ended.wait()

    def _close(self, pair: set[socket.socket]) -> None:
        for end in pair:
            end.close()
        with self._lock:
            self._sockets -= pair
