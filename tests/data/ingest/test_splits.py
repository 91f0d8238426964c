from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.data.ingest.splits import assign_splits, refuse_two_sides, split_videos, splits_drawn
from posture.data.labels.records import AnnotatedVideo, Label
from posture.data.store.files import File
from posture.errors import InputError


def videos(*labels):
    return [AnnotatedVideo(File(str(n), str(n), 1, 0.0), (label,)) for n, label in enumerate(labels)]


def label(name, group, split=None):
    return Label(0.0, None, name, group, split)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60), st.integers(0, 5))
def test_a_group_is_on_one_side_and_every_class_with_three_groups_on_all(pairs, seed):
    labels = [label(name, f"{name}{group}") for name, group in pairs]
    splits = assign_splits(labels, stored={}, seed=seed)
    assert set(splits) == {item.group for item in labels}
    groups = defaultdict(set)
    for name, group in pairs:
        groups[name].add(f"{name}{group}")
    for members in groups.values():
        sides = {splits[group] for group in members}
        assert "train" in sides
        if len(members) >= 3:
            assert sides == {"train", "val", "test"}


def test_val_is_carved_from_train_by_group_and_test_is_kept():
    footage = [label("a", f"g{n}", "train" if n < 10 else "test") for n in range(15)]
    splits = assign_splits(footage, stored={})
    assert sorted(splits.values()) == ["test"] * 5 + ["train"] * 8 + ["val"] * 2
    assert all(splits[f"g{n}"] == "test" for n in range(10, 15))


def test_a_named_val_is_kept_and_none_is_carved():
    footage = [label("a", "g1", "train"), label("a", "g2", "val"), label("a", "g3", "test"), label("a", "g4", "train")]
    assert assign_splits(footage, stored={}) == {"g1": "train", "g2": "val", "g3": "test", "g4": "train"}


def test_stored_groups_never_move_and_new_ones_fill_up():
    first = assign_splits([label("a", f"g{n}") for n in range(10)], stored={})
    more = assign_splits([label("a", f"g{n}") for n in range(20)], stored=first)
    assert {group: more[group] for group in first} == first
    assert sorted(more.values()).count("test") == 4


def test_the_seed_decides():
    footage = [label("a", f"g{n}") for n in range(30)]
    assert assign_splits(footage, stored={}, seed=1) == assign_splits(reversed(footage), stored={}, seed=1)
    assert assign_splits(footage, stored={}, seed=1) != assign_splits(footage, stored={}, seed=2)


def test_two_sides_are_refused():
    with pytest.raises(InputError, match="group 'g1' is in train and in test"):
        refuse_two_sides(videos(label("a", "g1", "train"), label("a", "g1", "test")), stored={})
    with pytest.raises(InputError, match="group 'g1' is stored as test, and the footage now says train"):
        refuse_two_sides(videos(label("a", "g1", "train")), stored={"g1": "test"})
    refuse_two_sides(videos(label("a", "g1", "train")), stored={"g1": "val"})
    assert assign_splits([label("a", "g1", "train")], stored={"g1": "val"}) == {"g1": "val"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_order_of_labels_decides_nothing(pairs, order):
    labels = [label(name, f"g{group}") for name, group in pairs]
    assert assign_splits(labels, stored={}) == assign_splits(order.sample(labels, len(labels)), stored={})


def test_background_is_no_class_of_a_group():
    labels = [label(name, f"{name}{group}") for name in "ab" for group in range(10)]
    background = [label("background", item.group) for item in labels for _ in range(3)]
    assert assign_splits([*background, *labels], stored={}) == assign_splits(labels, stored={})


def test_a_sentence_says_what_put_the_groups_on_their_sides():
    shares = {"val_share": 0.25, "test_share": 0.2, "seed": 3}
    labels = [label("a", "g1", "train"), label("a", "g2", "test")]
    said = splits_drawn(labels, {"g1": "train", "g2": "test"}, **shares)
    assert said == "groups: 1 train, 0 val, 1 test; val (0.25) drawn by group from what was kept, seed 3"
    named = [*labels, label("a", "g3", "val")]
    assert (
        splits_drawn(named, {"g1": "train", "g2": "test", "g3": "val"}, **shares)
        == "groups: 1 train, 1 val, 1 test; as the footage names them"
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), min_size=1, max_size=60),
    st.lists(st.sets(st.integers(0, 20), min_size=1, max_size=3), max_size=8),
    st.integers(0, 3),
)
def test_groups_of_one_video_are_on_one_side(pairs, shown, seed):
    labels = [label(name, f"g{group}") for name, group in pairs]
    together = [{f"g{group}" for group in groups} for groups in shown]
    splits = assign_splits(labels, stored={}, together=together, seed=seed)
    assert all(len({splits[group] for group in groups & splits.keys()}) < 2 for groups in together)
    alone = [groups for groups in together if len(groups) < 2]
    assert assign_splits(labels, stored={}, together=alone, seed=seed) == assign_splits(labels, stored={}, seed=seed)


def test_a_new_group_takes_the_side_of_the_one_it_is_seen_with():
    labels = [label("a", f"g{n}") for n in range(12)]
    stored = {"g0": "test", "g1": "val", "g2": "train"}
    together = [{"g0", "g5"}, {"g5", "g6"}, {"g1", "g7"}, {"g2", "g8"}]
    splits = assign_splits(labels, stored=stored, together=together)
    assert [splits[name] for name in ("g5", "g6", "g7", "g8")] == ["test", "test", "val", "train"]
    named = [label("a", "x", "train"), label("a", "y")]
    assert assign_splits(named, stored={"y": "val"}, together=[{"x", "y"}])["x"] == "val"  # val is taken from train
    old = {"g0": "test", "g1": "train"}  # a store of an earlier version that has both in one video
    assert assign_splits(labels[:2], stored=old, together=[{"g0", "g1"}]) == old


def fight(name, *groups, athlete=""):
    return AnnotatedVideo(
        File(name, name, 1, 0.0),
        tuple(Label(float(n), None, "a", group, None, athlete and group) for n, group in enumerate(groups)),
    )


def test_a_video_whose_groups_are_on_two_sides_is_refused_and_no_other():
    stored = {"ann": "train", "bob": "test", "cid": "val"}
    shown = [fight("v1", "ann", "new"), fight("v2", "new", "bob"), fight("v3", "bob"), fight("v4", "ann", "cid")]
    kept, refused = split_videos(shown, stored=stored, held={})
    assert [video.file.uri for video in kept] == ["v1", "v3"]
    assert refused == [
        {
            "uri": uri,
            "verdict": "two_sides",
            "reason": (
                f"the same frames would be on two sides, because it shows {who}; name one split, or use a new store"
            ),
        }
        for uri, who in (("v2", "bob (test), new (train)"), ("v4", "ann (train), cid (val)"))
    ]


def test_what_is_stored_of_a_video_stays_and_only_what_is_new_is_refused():
    stored = {"ann": "train", "bob": "test"}
    both = fight("v", "ann", "bob", athlete="named")
    assert split_videos([both], stored=stored, held={"v": {("ann", True), ("bob", True)}}) == ([both], [])
    (kept,), (refused,) = split_videos([both], stored=stored, held={"v": {("ann", True)}})
    assert [item.group for item in kept.labels] == ["ann"] and "left out: bob" in refused["reason"]
    moved = fight("v", "bob")  # the labels say another group now
    assert split_videos([moved], stored=stored, held={"v": {("ann", False)}}) == ([moved], [])
    # but segments of one athlete and of all that the video shows are labelled independently
    assert split_videos([moved], stored=stored, held={"v": {("ann", True)}})[0] == []
