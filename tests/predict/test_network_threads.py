"""Networks that run side by side."""

import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save

import posture
from posture.config import override
from posture.models import build
from posture.predict.model import VideoModel
from posture.predict.network_threads import NetworkThreads
from posture.runs import athlete_finder
from posture.runs.recipes import load_recipe
from posture.runs.trained import TrainedModel
from tests.support.explained import make_run

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_operations_use_one_thread_there_and_as_many_as_before_elsewhere(three_threads):
    threads = NetworkThreads(CPU)
    assert threads.count == 3
    assert threads.mapped(lambda part: [torch.get_num_threads()] * len(part), range(30))() == [1] * 30
    seen = [torch.get_num_threads()]
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3, 3]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_results_come_in_the_order_of_the_items(three_threads, count):
    threads = NetworkThreads(CPU)
    parts = []
    found = threads.mapped(lambda part: parts.append(len(part)) or [10 * item for item in part], np.arange(count))()
    assert found == [10 * item for item in range(count)]
    assert sum(parts) == count and len(parts) <= 3 and max(parts, default=0) - min(parts, default=0) <= 2


def test_an_error_is_raised_where_the_results_are_awaited(three_threads):
    def fail(part):
        raise ValueError("no such image")

    with pytest.raises(ValueError, match="no such image"):
        NetworkThreads(CPU).mapped(fail, [1, 2])()


def test_probabilities_do_not_depend_on_the_number_of_threads(three_threads, tmp_path):
    clips = list(np.random.default_rng(0).integers(0, 255, (5, 16, 40, 52, 3), np.uint8))
    folder = make_run(tmp_path)
    three = posture.load(folder.uri).probabilities(clips)
    torch.set_num_threads(1)
    np.testing.assert_allclose(posture.load(folder.uri).probabilities(clips), three, atol=1e-5)


def test_boxes_do_not_depend_on_the_number_of_threads(three_threads, monkeypatch):
    monkeypatch.setattr(athlete_finder, "MIN_CONFIDENCE", 1e-4)  # with random weights nothing is sure
    changes = {"model.classes": 1, "model.width": 0.125, "model.size": 64}
    run = override(load_recipe("jobs/detector.py:improved"), changes)
    model = VideoModel(detector=TrainedModel("", run, ("athlete",), save(build(run.model).state_dict())))
    frames = np.random.default_rng(0).integers(0, 255, (7, 48, 64, 3), np.uint8)
    found = model.find(frames)
    assert len(found) == 7 and all(len(boxes) for boxes, _ in found)
    for number, (boxes, scores) in enumerate(found):
        ((alone, surely),) = athlete_finder.Finder(model.detector)(frames[number : number + 1])  # type: ignore[arg-type]
        np.testing.assert_allclose(scores, surely, atol=1e-5)
        np.testing.assert_allclose(boxes, alone, atol=1e-3)
