"""No room or no access when a checkpoint is written: one sentence, what was saved before stands, and the run goes on
from it.
"""

import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest

from posture.config import validate
from posture.models import build
from posture.runs.folder import RunFolder
from posture.train.checkpoint import load_weights, read_state
from tests.faults.rounds import TOLERANCE
from tests.faults.site import EPOCHS, Place, difference, read_result

pytestmark = [pytest.mark.slow, pytest.mark.ray]
MEGABYTES = 64


@contextmanager
def small_disk(path):
    """A disk of its own at the folder `path`, where this user may mount one."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def check_refused(command, complaint):
    output, _ = command.process.communicate(timeout=200)
    assert command.process.returncode == 2 and "Traceback" not in output, output
    said = [line for line in output.splitlines() if line.startswith("posture: ")]
    assert len(said) == 1 and complaint in said[0] and "continue with --resume" in said[0], output


def check_checkpoints(uri):
    """Both are whole. Returns the epochs that the last one has."""
    folder = RunFolder.open(uri)
    for which in ("best", "last"):
        with folder.checkpoint(which) as checkpoint:
            load_weights(build(validate(folder.read_json("run.json")["run"]).model), checkpoint / "model.safetensors")
            epoch = read_state(checkpoint)["epoch"]
    return epoch


def wait_for_a_checkpoint(place, command):
    while not RunFolder(f"{place.root}/runs", "small").checkpoints() and command.process.poll() is None:
        time.sleep(0.05)


def go_on(site, place, calm, *, local):
    site.begin([*place.command("train", site.footage), *(["--local"] if local else [])]).finish()
    site.begin(place.command("evaluate", site.footage)).finish()
    assert difference(read_result(place), calm.result) <= TOLERANCE


def test_a_disk_that_is_full(site, calm):
    """On two workers, of which one alone writes."""
    with small_disk(site.folder / "disk") as disk:
        place = Place(str(disk), other_store=calm.place.store)
        command = site.begin(place.command("train", site.footage))
        wait_for_a_checkpoint(place, command)
        with open(disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(4096))
        check_refused(command, "No space left on device")
        assert 1 <= check_checkpoints(place.run) < EPOCHS
        (disk / "filler").unlink()
        go_on(site, place, calm, local=False)


def test_credentials_that_are_refused(site, calm):
    place = Place("s3://lab/refused", other_store=calm.place.store)

    def allow(count: str) -> None:
        """The server takes that many requests more with our credentials."""
        url, plain = f"http://127.0.0.1:{site.gate.target}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, count.encode(), plain), timeout=10).close()

    command = site.begin([*place.command("train", site.footage), "--local"])
    wait_for_a_checkpoint(place, command)
    allow("0")
    try:
        check_refused(command, "cannot be written")
    finally:
        allow("inf")
    assert 1 <= check_checkpoints(place.run) < EPOCHS
    go_on(site, place, calm, local=True)
