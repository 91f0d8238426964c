"""Several nodes on one machine do what one does."""

import numpy as np
import pytest

from posture.runs.folder import RunFolder
from tests.faults.rounds import TOLERANCE
from tests.faults.site import VIDEOS

pytestmark = [pytest.mark.slow, pytest.mark.ray]
LOSSES = ("train_loss", "val_loss", "val_accuracy")


def history(uri):
    return [[record[name] for name in LOSSES] for record in RunFolder.open(uri).read_json("history.json")]


def test_ingest_spreads_over_nodes(calm):
    assert len(calm.raylets["ingest"]) >= 2
    assert len(calm.result.rows["videos"]) == len(calm.result.rows["clips"]) == VIDEOS


def test_two_nodes_have_the_losses_of_one_process(site, calm):
    assert len(calm.raylets["train"]) == 2
    arguments = calm.place.command("train", site.footage)
    arguments[arguments.index("small")] = "alone"
    workers = arguments.index("--workers")
    site.begin([*arguments[:workers], "--local", *arguments[workers + 2 :]]).finish()
    np.testing.assert_allclose(history(f"{calm.place.root}/runs/alone"), history(calm.place.run), rtol=TOLERANCE)


def test_workers_score_as_one_process_does(site, calm):
    folder = RunFolder.open(calm.place.run)
    before = folder.evaluation().metrics
    site.begin(["evaluate", calm.place.run]).finish()
    after = folder.evaluation().metrics
    assert before.pop("device").startswith("2 x ") and after.pop("device").startswith("cpu")
    assert before.pop("seconds") and after.pop("seconds")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), name
