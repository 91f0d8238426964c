import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from posture.data.decode.tracks import candidates, following, is_seen, link, tubes_from_json, tubes_to_json
from posture.data.labels.records import Tube

NONE = np.zeros((0, 4)), np.zeros(0)


def tube(name, frames, box=(0, 0, 10, 10)):
    return Tube(name, "", dict.fromkeys(frames, box))


def looks(*athletes, frames=range(0, 40, 2), score=0.8):
    """Boxes found in each look; the athletes are functions of the frame that return a box, or None."""
    found = {}
    for frame in frames:
        boxes = [box for place in athletes if (box := place(frame)) is not None]
        found[frame] = (np.array(boxes, float), np.full(len(boxes), score)) if boxes else NONE
    return found


def chosen(tubes, *, athlete="", group="ann", frames=range(10, 20)):
    return [one.name for one in candidates(tubes, athlete=athlete, group=group, frames=frames)]


def test_whose_tube_a_segment_is_cut_along():
    tubes = [tube("bob", range(40)), tube("ann", range(12, 20)), tube("v/1", range(5))]
    assert chosen(tubes) == ["ann"]  # the group, though another has more boxes
    assert chosen(tubes, athlete="v/1") == ["v/1"]
    assert chosen(tubes, athlete="v/2") == []  # no other athlete is labelled
    assert chosen(tubes, group="some group") == ["bob"]
    assert chosen(tubes, group="some group", frames=range(0, 3)) in (["bob"], ["v/1"])
    assert chosen([]) == [] and chosen([tube("ann", ())]) == []


def test_the_found_tubes_that_follow_a_drawn_one():
    def placed(name, place):
        return Tube(name, "", {frame: place(frame) for frame in range(0, 40, 2)})

    left = placed("ann", lambda n: (n, 0, n + 20, 40))
    near, far = placed("s", lambda n: (n + 4, 2, n + 22, 44)), placed("s", lambda n: (100 - n, 0, 120 - n, 40))
    part = Tube("s", "", {frame: left.boxes[frame] for frame in (0, 2, 4)})
    assert following([far, part, near], left) == [near, part]
    sparse = Tube("ann", "", {0: left.boxes[0], 38: left.boxes[38]})
    assert following([far, part, near], sparse) == [near, part]  # its boxes between are interpolated
    assert following([far], left) == [] and following([], left) == []
    assert following([Tube("s", "", {90: (0, 0, 20, 40)})], left) == []  # there is nobody drawn at that time


def test_a_tube_must_last_through_a_quarter_of_the_clip():
    numbers = list(range(0, 40, 2))
    assert is_seen(tube("a", range(0, 10)), numbers)  # 5 of 20
    assert not is_seen(tube("a", range(0, 8)), numbers)
    assert is_seen(tube("a", (10, 30)), numbers)  # interpolated between two boxes
    assert not is_seen(tube("a", range(50, 90)), numbers)


def test_two_athletes_who_pass_each_other_are_two_tubes():
    tubes = link(looks(lambda n: (n, 0, n + 20, 40), lambda n: (100 - n, 30, 130 - n, 90)), name="s", stride=2)
    assert [one.name for one in tubes] == ["s", "s"]
    assert {tuple(one.boxes[38]) for one in tubes} == {(38, 0, 58, 40), (62, 30, 92, 90)}
    assert all(list(one.boxes) == list(range(0, 40, 2)) for one in tubes)


def test_the_surest_is_first():
    faint, sure = (
        looks(lambda n: (0, 0, 20, 20), score=0.3),
        looks(lambda n: (50, 0, 70, 20), frames=range(0, 24, 2), score=0.9),
    )
    both = {
        frame: tuple(np.concatenate([one.get(frame, NONE)[part] for one in (faint, sure)]) for part in range(2))
        for frame in faint
    }
    tubes = link(both, name="s", stride=2)
    assert [len(one.boxes) for one in tubes] == [12, 20]  # 10.8 against 6.0


def test_gaps_of_a_few_looks_are_bridged_and_longer_ones_are_not():
    def hidden(missed):
        return link(looks(lambda n: None if 10 <= n < 10 + 2 * missed else (5, 5, 25, 45)), name="s", stride=2)

    assert [len(hidden(missed)) for missed in (0, 1, 3, 4)] == [1, 1, 1, 2]
    windows = {**looks(lambda n: (5, 5, 25, 45)), **looks(lambda n: (5, 5, 25, 45), frames=range(200, 240, 2))}
    assert len(link(windows, name="s", stride=2)) == 2


def test_faint_boxes_continue_a_tube_and_begin_none():
    found = looks(lambda n: (5, 5, 25, 45))
    fainter = {frame: (boxes, np.full(1, 0.5 if frame == 0 else 0.15)) for frame, (boxes, _) in found.items()}
    (one,) = link(fainter, name="s", stride=2)
    assert len(one.boxes) == 20
    assert link({frame: (boxes, np.full(1, 0.2)) for frame, (boxes, _) in found.items()}, name="s", stride=2) == []
    assert link(dict.fromkeys(range(9), NONE), name="s", stride=1) == []
    (short,) = link(
        {frame: (boxes, np.full(1, 0.5 if frame == 0 else 0.05)) for frame, (boxes, _) in found.items()},
        name="s",
        stride=2,
    )
    assert list(short.boxes) == [0]


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(1, 40), st.floats(1, 40), st.floats(0, 1)),
            max_size=6,
        ),
        max_size=12,
    )
)
def test_every_sure_box_is_in_exactly_one_tube(frames):
    found = {
        number: (
            np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes]).reshape(-1, 4),
            np.array([score for *_, score in boxes]),
        )
        for number, boxes in enumerate(frames)
    }
    tubes = link(found, name="s", stride=1)
    for number, (boxes, scores) in found.items():
        linked = sorted(tuple(one.boxes[number]) for one in tubes if number in one.boxes)
        sure = sorted(tuple(box) for box, score in zip(boxes.tolist(), scores, strict=True) if score >= 0.25)
        left = list(linked)
        for box in sure:
            left.remove(box)
        assert all(box in [tuple(other) for other in boxes.tolist()] for box in left)


def test_tubes_travel_as_json():
    tubes = (Tube("ann", "kick", {3: (0.5, 1.0, 2.0, 3.0), 4: (0.5, 1.0, 2.0, 4.25)}), Tube("bob", "", {}))
    assert tubes_from_json(json.loads(json.dumps(tubes_to_json(tubes)))) == tubes
