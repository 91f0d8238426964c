"""The same run without Weights & Biases, with it offline, and with a server that fails: the cost of tracking."""

from __future__ import annotations

import contextlib
import http.server
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from posture.bench import facts, generated, ratio, train_local
from posture.data.decode.cut import Cut
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store

CHANGES = {"epochs": 6, "model.width": 0.25, "scale.global_batch": 8}
OFF = "off"


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """{"what", "measured", "ratios", "notes"}; each round trains once for each way of tracking, every time in a fresh
    process.
    """
    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.data.ingest.clips import ingest_clips
    from posture.runs.folder import RunFolder

    training: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="posture-bench-") as folder,
        failing_server(500) as errors,
        failing_server(401) as refused,
        silent_server() as silent,
    ):
        store = f"{folder}/store"
        ingest_clips(
            read_footage(footage or generated(videos=40)),
            Store(store, create=True),
            IngestOptions(cut=Cut(DecodeRecipe(height=72, width=98))),
        )
        ways = {
            OFF: {"WANDB_MODE": "disabled"},
            "offline": {"WANDB_MODE": "offline"},
            "its server errs": {"WANDB_BASE_URL": errors},
            "it refuses the key": {"WANDB_BASE_URL": refused},
            "it never answers": {"WANDB_BASE_URL": silent},
        }
        for number in range(rounds):
            for place, (way, variables) in enumerate(ways.items()):
                name, began = f"tracked-{number}-{place}", time.monotonic()
                train_local(
                    store, folder, name, CHANGES, {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40} | variables
                )
                whole.setdefault(way, []).append(time.monotonic() - began)
                history = RunFolder.open(f"{folder}/runs/{name}").read_json("history.json") or []
                training.setdefault(way, []).append(sum(row["seconds"] for row in history))
    return {
        "what": (
            "train --local, W&B failing or not: "
            f"{facts(**{name.rpartition('.')[2]: value for name, value in CHANGES.items()})}"
        ),
        "measured": {
            f"{what}, {way}": seconds
            for what, of in (("epochs, s", training), ("whole command, s", whole))
            for way, seconds in of.items()
        },
        "ratios": {
            f"{what}, {way} / {OFF}": ratio(seconds, of[OFF])
            for what, of in (("epochs", training), ("whole command", whole))
            for way, seconds in of.items()
            if way != OFF
        },
        "notes": ["the whole command includes what W&B is waited for once training has ended"],
    }


@contextlib.contextmanager
def failing_server(status: int) -> Iterator[str]:
    """The address of an HTTP server on this machine that answers `status` to whatever it is asked."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"errors": [{"message": "no"}]}')

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            """Nothing: there are many."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The address of one that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
