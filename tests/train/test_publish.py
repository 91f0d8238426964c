"""Checkpoints on their way into folders that are full and buckets that are slow, or closed to us."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from posture.errors import Unreachable
from posture.runs.folder import RunFolder
from posture.train.publish import Publisher
from tests.support.checkpoints import saver, stored
from tests.support.processes import s3_server
from tests.support.small_disk import run_on_small_disk

pytestmark = pytest.mark.long

FULL = """
import shutil, sys
from pathlib import Path
from posture.errors import Unreachable
from posture.runs.folder import RunFolder
from posture.train.publish import Publisher
from tests.support.checkpoints import saver, stored

folder = RunFolder(sys.argv[1], "one")
publisher = Publisher(folder)
publisher.publish({"epoch": 1}, saver(1), best=True)
try:
    publisher.publish({"epoch": 2}, saver(2, size=3_000_000), best=True)
except Unreachable as error:
    print(error)
assert stored(folder) == (1, 1)
assert len(list(Path(folder.path("checkpoints")).iterdir())) == 1, "half of a checkpoint was left behind"
publisher.publish({"epoch": 3}, saver(3), best=True)
assert stored(folder) == (3, 3)
"""


def test_a_full_disk_is_said_and_the_last_checkpoint_stands(tmp_path: Path) -> None:
    """A real one, of 1 MB, that this process alone sees."""
    said = run_on_small_disk(FULL, tmp_path, megabytes=1)
    assert said.startswith(f"{tmp_path}/one: the checkpoint epoch-0002 cannot be written (") and "No space left" in said
    assert "the one before it is kept" in said and len(said.splitlines()) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(server: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> RunFolder:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return RunFolder("s3://lab/runs", request.node.name.replace("_", "-")[:100])


@contextlib.contextmanager
def gate(url: str) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """An address that leads to `url` once the second event is set; the first one is set when somebody stands there."""
    came, opened = threading.Event(), threading.Event()
    target = (url.split("/")[2].split(":")[0], int(url.rpartition(":")[2]))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=lead, args=(client,), daemon=True).start()

    def lead(client: socket.socket) -> None:
        came.set()
        opened.wait(60)
        behind = socket.create_connection(target)
        threading.Thread(target=copy, args=(behind, client), daemon=True).start()
        copy(client, behind)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", came, opened


@pytest.mark.slow
def test_training_goes_on_while_a_checkpoint_is_on_its_way_to_a_bucket(server, bucket, monkeypatch) -> None:
    publisher, told = Publisher(bucket), []
    publisher.publish({"epoch": 1}, saver(1), best=True, then=lambda: told.append(1))
    publisher.settle()
    with gate(server["AWS_ENDPOINT_URL"]) as (url, came, opened):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        publisher.publish({"epoch": 2}, saver(2), best=False, then=lambda: told.append(2))
        assert came.wait(30), "the upload has begun, and we are here"
        monkeypatch.setenv("AWS_ENDPOINT_URL", server["AWS_ENDPOINT_URL"])
        assert stored(bucket) == (1, 1) and told == [1], "readers see the checkpoint before, whole"
        next_one = threading.Thread(
            target=publisher.publish,
            args=({"epoch": 3}, saver(3)),
            kwargs={"best": True, "then": lambda: told.append(3)},
        )
        next_one.start()
        next_one.join(0.5)
        assert next_one.is_alive() and told == [1], "one upload at a time"
        opened.set()
        next_one.join(30)
        publisher.settle()
    assert told == [1, 2, 3] and stored(bucket) == (3, 3) and bucket.checkpoints()["best"].startswith("epoch-0003")


@pytest.mark.slow
def test_credentials_that_are_lost_are_said_and_the_last_checkpoint_stands(server, bucket, monkeypatch) -> None:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.end_headers()
            self.wfile.write(
                b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
            )

        def log_message(self, *_: object) -> None:
            pass

    publisher = Publisher(bucket)
    publisher.publish({"epoch": 1}, saver(1), best=True)
    publisher.settle()
    refusing = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=refusing.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
    publisher.publish({"epoch": 2}, saver(2), best=True)
    with pytest.raises(Unreachable, match=r"the checkpoint epoch-0002 cannot be written .*the one before it is kept"):
        publisher.publish({"epoch": 3}, saver(3), best=True)
    refusing.shutdown()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server["AWS_ENDPOINT_URL"])
    assert stored(bucket) == (1, 1)
    publisher.settle()
