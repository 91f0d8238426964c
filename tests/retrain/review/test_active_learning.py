import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from posture.config import ActionRun
from posture.data.labels.review_csv import Stretch, write_answer
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, IMPROVED
from posture.retrain.review.active_learning import find_stretches, group_of, most_informative, score_stretches
from tests.support.footage import make_video, write_bad_files

SMALL = C3D(**{**IMPROVED, "classes": 3, "width": 0.125, "size": 32})


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), create=True)
    store.create_tables()
    return store


@pytest.fixture
def footage(tmp_path):
    make_video(tmp_path / "footage" / "jump" / "a.mp4")
    make_video(tmp_path / "footage" / "new.mp4", seed=1)
    make_video(tmp_path / "footage" / "unlabelled" / "game.mp4", frames=120, fps=4.0, seed=2)  # 30 s
    return tmp_path / "footage"


def places(found):
    return [(one.stretch.video, one.stretch.start, one.stretch.end) for one in found.asked]


def test_short_files_are_asked_about_whole_and_long_ones_in_parts(footage, store):
    found = find_stretches(str(footage), store)
    assert places(found) == [
        ("new.mp4", 0.0, None),
        ("unlabelled/game.mp4", 0.0, 10.0),
        ("unlabelled/game.mp4", 10.0, 20.0),
        ("unlabelled/game.mp4", 20.0, None),
    ]
    assert {one.stretch.group for one in found.asked[1:]} == {"unlabelled/game"} and found.asked[
        -1
    ].span == pytest.approx((20.0, 30.0))
    assert (found.files, found.refused) == (2, [])


def test_what_is_answered_is_not_asked_again(footage, store):
    for video, start, end, label in (
        ("new.mp4", 0.0, None, ""),
        ("unlabelled/game.mp4", 8.0, 9.5, "jump"),
        ("unlabelled/game.mp4", 25.0, None, "run"),
    ):
        write_answer(str(footage), Stretch(video, start, end, "x"), label)
    assert places(find_stretches(str(footage), store)) == [("unlabelled/game.mp4", 10.0, 20.0)]


def test_files_that_cannot_be_shown_say_why(footage, store):
    verdicts = write_bad_files(footage / "unlabelled" / "bad", footage / "new.mp4")
    (footage / "copy.mp4").write_bytes((footage / "new.mp4").read_bytes())
    refused = {item["uri"].rpartition("/")[2]: item["verdict"] for item in find_stretches(str(footage), store).refused}
    assert refused.pop("new.mp4") == "duplicate"  # the second of the two in order
    assert (
        set(refused) == set(verdicts)
        and refused["text.mp4"] == "not_video"
        and refused["empty.mp4"] == "empty"
        and refused["lost.mp4"] == "unreadable"
    )


def test_a_table_that_says_no_times_is_refused(footage, store):
    (footage / "review.csv").write_text("video,start,end,label\nnew.mp4,soon,,jump\n")
    with pytest.raises(InputError, match=r"review\.csv line 2: start 'soon' is not a time"):
        find_stretches(str(footage), store)


def test_groups_of_ucf101_are_those_of_its_labelled_files():
    assert group_of("in/v_Archery_g08_c02.avi") == "Archery_g08" and group_of("in/game.mp4") == "in/game"


def test_stretches_are_scored_on_their_own_frames_and_one_that_breaks_stops_nothing(footage, store, tmp_path):
    torch.manual_seed(0)
    save_file(build(SMALL).state_dict(), tmp_path / "model.safetensors")
    run = ActionRun(name="one", model=SMALL, data={"recipe": "40x52-stretch-f20-s2-w1-raw"})
    asked = find_stretches(str(footage), store).asked
    (footage / "new.mp4").write_bytes(b"gone")
    scored = score_stretches(asked, run, ("a", "b", "c"), tmp_path)
    assert scored.asked == asked[1:] and scored.probabilities.shape == (3, 3) and len(scored.features) == 3
    np.testing.assert_allclose(scored.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert [(item["uri"], item["verdict"]) for item in scored.refused] == [(asked[0].uri, "truncated")]
    with pytest.raises(InputError, match="clips cut around the athlete"):
        score_stretches(
            asked,
            ActionRun(name="one", model=SMALL, data={"recipe": "40x52-stretch-f20-s2-w1-raw-boxes0.2"}),
            ("a", "b", "c"),
            tmp_path,
        )


def test_the_unsure_come_first_and_near_copies_once():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 16))
    sure = np.full((40, 3), 0.01)
    sure[:, 0] = 0.98
    probabilities = sure.copy()
    probabilities[:8] = 1 / 3
    features[1:6] = features[0] + 1e-4 * generator.normal(size=(5, 16))  # five copies of the first
    chosen = most_informative(probabilities, features, 4)
    assert set(chosen[:3]) == {min(set(range(6)) & set(chosen)), 6, 7} and chosen[3] >= 8
    assert len(most_informative(np.full((6, 3), 1 / 3), features[:6], 6)) <= 2


def test_fewer_than_asked_for_and_a_single_class():
    assert most_informative(np.zeros((0, 3)), np.zeros((0, 4)), 5) == []
    assert sorted(most_informative(np.ones((3, 1)), np.eye(3), 5)) == [0, 1, 2]
    assert most_informative(np.full((1, 3), 1 / 3), np.ones((1, 4)), 5) == [0]
