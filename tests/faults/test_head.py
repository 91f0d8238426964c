"""The head is lost in the midst of training, and with it all that the cluster knows; the same command goes on when
there is one again.
"""

import time

import pytest

from tests.faults.rounds import TOLERANCE
from tests.faults.site import Place, checkpoints_of, difference, read_result

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_given_again_after_the_head_was_lost_a_run_goes_on(site, calm):
    place = Place(str(site.folder / "head"), other_store=calm.place.store)
    command = site.begin(place.command("train", site.footage))
    while not checkpoints_of(site, place) and command.process.poll() is None:
        time.sleep(0.05)
    site.nodes.tell("kill head")
    assert command.process.wait(timeout=200) != 0
    site.nodes.tell("start")
    output = site.begin(place.command("train", site.footage)).finish()
    assert "resuming small" in output
    site.begin(place.command("evaluate", site.footage)).finish()
    result = read_result(place)
    assert result.rows == calm.result.rows and difference(result, calm.result) <= TOLERANCE
