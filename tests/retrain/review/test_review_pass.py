"""Unlabelled footage from its arrival to the model: listed by a pass, asked about, answered, and taken in by the next
pass.
"""

import json
from pathlib import Path

import pytest

from posture.commands.review import choose
from posture.commands.status import print_status
from posture.retrain.decision import DecisionLimits
from posture.retrain.options import InboxOptions, RetrainOptions
from posture.retrain.registry import Registry
from posture.retrain.run_pass import run_pass
from tests.support.footage import make_class_folders, make_video
from tests.support.small_run import SMALL_ACTION

SMALL = SMALL_ACTION | {"data.recipe": "32x40-stretch-f12-s2-w1-raw", "model.frames": 8, "epochs": 2}


@pytest.mark.slow
def test_answers_are_taken_in_by_the_next_pass(tmp_path, capsys):
    drop, registry = make_class_folders(tmp_path / "in", per_class=6), Registry(str(tmp_path / "registry"), create=True)
    options = RetrainOptions(
        InboxOptions(str(drop), settle=0, test_share=0.34),
        str(tmp_path / "store"),
        registry.uri,
        changes=SMALL,
        min_clips=1,
        min_per_class=1,
        limits=DecisionLimits(margin=0.0, tolerance=1.0, recall_floor=0.0, max_class_drop=1.0),
    )
    first = run_pass(options)
    assert first.decision is not None
    if registry.champion() is None:  # so small a network may know nothing: here it only has to be unsure
        with registry.lease():
            registry.promote("v0001", why="for the test")
    for number in range(4):
        make_video(drop / f"new{number}.mp4", seed=50 + number, direction=-1)
    make_video(drop / "unlabelled" / "copy.mp4", seed=50, direction=-1)
    assert (waits := run_pass(options)).status == "nothing" and len(waits.look["unlabelled"]) == 5
    print_status(registry.uri)
    assert "5 files without a label: posture review asks for them" in capsys.readouterr().out

    review = choose(registry.uri, options.store, str(drop), count=10)
    try:
        assert "left out: " in (said := capsys.readouterr().out) and "duplicate" in said, "of a copy one is asked about"
        shown = [question.asked.stretch.video for question in review.questions]
        assert 1 <= len(shown) <= 4 and "unlabelled/copy.mp4" not in shown
        for number in range(len(shown)):
            review.answer(number, "labelled", "left")
    finally:
        review.close()

    third = run_pass(options)
    assert third.decision is not None and third.decision["came_in"]["segments"] == len(shown)
    assert third.decision["came_in"]["classes"].keys() == {"left"} and len(third.look["unlabelled"]) == 5 - len(shown)
    folder = Path(registry.path("passes", third.pass_id))
    page = (folder / "decision.html").read_text()
    assert (
        third.decision["verdict"].partition(" (")[0] in page
        and "New footage" in page
        and page.rstrip().endswith("</html>")
    )
    drift = json.loads((folder / "drift.json").read_text())
    assert drift["shared"] == ["left"] and drift["segments"]["new"] == len(shown)
