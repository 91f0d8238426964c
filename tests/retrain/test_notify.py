"""Word of a decision reaches a real server and a real command, and nothing that goes wrong there is more than a
sentence.
"""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from posture.errors import InputError
from posture.retrain import notify as module
from posture.retrain.notify import FIELDS, Notification, notify

DECISION = {name: name for name in FIELDS} | {
    "outcome": "refused",
    "verdict": "Refused: worse.",
    "changed": ["much more"],
}


@pytest.fixture
def server():
    """A server that remembers what it was sent, and answers with the status that it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.got.append((
                self.headers["Content-Type"],
                json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
            ))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    running.got, running.status = [], 204
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def url(server):
    return f"http://127.0.0.1:{server.server_port}/hook?key=secret"


def test_a_webhook_gets_the_verdict(server):
    assert notify(Notification(url(server)), DECISION) == []
    ((kind, content),) = server.got
    assert kind == "application/json" and content == {name: DECISION[name] for name in FIELDS} | {
        "text": "Posture: Refused: worse."
    }


def test_a_server_that_refuses_or_is_not_there_is_a_sentence_without_the_secret(server):
    server.status = 500
    said = notify(Notification(url(server)), DECISION)
    server.shutdown()
    server.server_close()
    said += notify(Notification(url(server)), DECISION)
    assert len(said) == 2 and all("got no notification" in sentence and "secret" not in sentence for sentence in said)


def test_a_server_that_speaks_something_else_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            taken, _ = server.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(b"220 mail.example\r\n")

        threading.Thread(target=answer, daemon=True).start()
        (said,) = notify(Notification(f"http://127.0.0.1:{server.getsockname()[1]}/secret"), DECISION)
    assert said == "--notify-url: 127.0.0.1 got no notification (BadStatusLine)"


def test_an_address_that_cannot_be_asked_is_a_sentence_without_the_secret():
    assert notify(Notification("http://127.0.0.1:9/secret path"), DECISION) == [
        "--notify-url: 127.0.0.1 got no notification (InvalidURL)"
    ]


def test_a_command_gets_it_too(tmp_path):
    assert (
        notify(Notification(command=f'cat > {tmp_path}/told; echo "$POSTURE_OUTCOME" > {tmp_path}/outcome'), DECISION)
        == []
    )
    assert (
        json.loads((tmp_path / "told").read_text())["verdict"] == "Refused: worse."
        and (tmp_path / "outcome").read_text() == "refused\n"
    )


def test_a_command_that_fails_or_hangs_is_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.5)
    assert notify(Notification(command="exit 3"), DECISION) == ["--notify-command ended with exit code 3"]
    assert "was stopped" in notify(Notification(command="exec sleep 60"), DECISION)[0]


def test_a_command_that_hangs_takes_along_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.5)
    assert (
        "was stopped" in notify(Notification(command=f"(sleep 1.5; touch {tmp_path}/late) & wait; true"), DECISION)[0]
    )
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_only_web_addresses_are_taken_and_others_are_not_repeated():
    for bad in ("file:///etc/passwd", "lab.example", "ftp://x/y", "http://[secret", "https:///secret"):
        with pytest.raises(InputError, match="must begin with http") as told:
            Notification(bad)
        assert bad not in str(told.value)
