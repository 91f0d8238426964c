"""Where a command finds its Ray, and what it says if it finds none."""

import socket

import pytest

from posture.distributed import cluster
from posture.errors import InputError
from tests.support.processes import posture


def test_an_address_where_nothing_answers_is_refused_at_once(small_store, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        port = taken.getsockname()[1]
        done = posture(
            "train",
            "jobs/action.py:improved",
            "--store",
            small_store,
            "--runs",
            str(tmp_path),
            "--name",
            "a",
            "--set",
            "scale.global_batch=4",
            environment={"RAY_ADDRESS": f"127.0.0.1:{port}"},
        )
    assert done.returncode == 2 and not list(tmp_path.iterdir()), done.stdout + done.stderr
    said = done.stderr.strip()
    assert (
        said.startswith(f"posture: RAY_ADDRESS=127.0.0.1:{port} cannot be used: nothing answers there")
        and "unset RAY_ADDRESS" in said
    )
    assert "\n" not in said


@pytest.mark.parametrize("address", [None, "auto", "local", "ray://127.0.0.1:1", "k8s/somewhere", "host", "host:"])
def test_only_plain_addresses_are_tried_first(address):
    cluster._refuse_silent(address)


def test_a_refused_token_is_known_by_what_caused_the_error():
    """As Ray 2.60 raises it: a ConnectionError whose cause names the token."""

    def chain(*messages):
        first, *causes = [ConnectionError(message) for message in messages]
        for outer, inner in zip([first, *causes], causes, strict=False):
            outer.__cause__ = inner
        return first

    assert cluster._is_about_the_token(
        chain(
            "Failed to connect", "Failed to connect to GCS", "Unauthenticated: InvalidAuthToken: missing or incorrect"
        )
    )
    assert not cluster._is_about_the_token(chain("Failed to connect", "Timed out while waiting for GCS"))
    with pytest.raises(InputError, match="cannot be used: nothing answers there"):
        cluster._refuse_silent("127.0.0.1:99999")
