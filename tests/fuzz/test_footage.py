"""A share of the fuzz of footage, another one each day; `python -m tests.fuzz` plays all of it."""

import pytest

from tests.fuzz.rounds import play_images, play_labels, play_videos
from tests.fuzz.sources import LAYOUTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def seed(request):
    return request.config.getoption("--slow-seed")


def test_broken_videos_do_no_harm(tmp_path, seed):
    outcome = play_videos(tmp_path / "round", seed=seed, number=0, count=100)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.verdicts["ok"] >= 6 and sum(outcome.verdicts.values()) >= 106


def test_broken_images_do_no_harm(tmp_path, seed):
    outcome = play_images(tmp_path / "round", seed=seed, number=0, count=100)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.verdicts["ok"] >= 12 and sum(outcome.verdicts.values()) >= 112


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_broken_labels_do_no_harm(tmp_path, seed, layout):
    wrong = [
        line
        for number in range(4)
        for line in play_labels(tmp_path / str(number), seed=seed, number=number, layout=layout).wrong
    ]
    assert not wrong, "\n".join(wrong)
