"""What models say of held-out segments: each once, in the columns of all classes, of footage cut by hand."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from posture.config import ActionRun
from posture.data.feed.clips import index_footage
from posture.data.store import schema
from posture.data.store.tables import Store
from posture.models import build
from posture.models.configs import C3D
from posture.retrain.holdout import Model, ask, figures, score_segments, write_predictions

RECIPE = "16x16-stretch-f8-s1-w2-raw"
CLASSES = ("dive", "jump", "vault")


@pytest.fixture
def store(tmp_path):
    """Six held-out segments of two clips each, two of each class, and a training segment."""
    made = Store(str(tmp_path / "store"), create=True)
    made.create_tables()
    sides = [(name, "test") for name in CLASSES for _ in range(2)] + [("dive", "train")]
    segments = [
        {
            "segment": f"s{number}",
            "video": f"v{number}",
            "start": 0.0,
            "end": 1.0,
            "label": label,
            "group": f"g{number // 2}",
            "split": split,
        }
        for number, (label, split) in enumerate(sides)
    ]
    generator = np.random.default_rng(0)
    clips = [
        {
            "clip": f"{row['segment']}-{window}",
            "segment": row["segment"],
            "recipe": RECIPE,
            "start": 0.0,
            "frames": 8,
            "height": 16,
            "width": 16,
            "offsets": [],
            "pixels": generator.integers(0, 255, 8 * 16 * 16 * 3, dtype=np.uint8).tobytes(),
        }
        for row in segments
        for window in range(2)
    ]
    made.append("segments", pa.Table.from_pylist(segments, schema=schema.SEGMENTS))
    made.append("clips", pa.Table.from_pylist(clips, schema=schema.CLIPS))
    return made


def model(folder: Path, classes):
    """A network with random weights that knows these classes."""
    run = ActionRun(name="small", model=C3D(classes=len(classes), frames=8, size=16, width=0.125, head="gap"))
    torch.manual_seed(len(classes))
    folder.mkdir()
    save_file(build(run.model).state_dict(), folder / "model.safetensors")
    return Model(run, classes, contextlib.nullcontext(folder))


def held_out(store):
    return {
        row["segment"]: [row["label"], row["split"], row["group"]]
        for row in store.read("segments").to_pylist()
        if row["split"] == "test"
    }


def test_every_segment_that_is_asked_for_and_has_clips_is_scored_once(store, tmp_path):
    one = model(tmp_path / "one", CLASSES)
    found, scores = score_segments(
        store, one.run, tmp_path / "one", ["s3", "s1", "s6", "nobody"], versions=store.versions()
    )
    assert found == ["s1", "s3"] and scores.shape == (2, 3)  # s6 is trained on
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    whole, all_scores = score_segments(
        store, one.run, tmp_path / "one", [f"s{number}" for number in range(6)], versions=store.versions()
    )
    np.testing.assert_allclose(all_scores[[whole.index("s1"), whole.index("s3")]], scores, rtol=1e-5)
    assert score_segments(store, one.run, tmp_path / "one", [], versions=store.versions())[0] == []


def test_both_answer_in_the_columns_of_all_classes(store, tmp_path):
    champion, challenger = model(tmp_path / "champion", ("dive", "jump")), model(tmp_path / "challenger", CLASSES)
    answers = ask(store, store.versions(), held_out(store), frozenset({"s0", "s2"}), challenger, champion)
    assert answers.segments == [f"s{number}" for number in range(6)] and answers.classes == CLASSES
    assert answers.labels.tolist() == [0, 0, 1, 1, 2, 2] and answers.frozen.tolist() == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert (answers.champion[:, 2] == 0).all() and answers.known_before == {"dive", "jump"}
    np.testing.assert_allclose(answers.champion.sum(axis=1), 1, rtol=1e-5)
    assert (
        figures(answers, answers.champion, answers.known_before)["count"] == 4
        and figures(answers, answers.challenger, answers.known)["count"] == 6
    )
    alone = ask(store, store.versions(), held_out(store), frozenset(), champion, None)
    assert (
        alone.champion is None
        and alone.segments == ["s0", "s1", "s2", "s3"]
        and figures(alone, alone.champion, alone.known_before) is None
    )

    write_predictions(str(tmp_path / "predictions.parquet"), answers)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert json.loads(table.schema.metadata[b"classes"]) == list(CLASSES) and table["set"].to_pylist()[:2] == [
        "frozen",
        "new",
    ]
    np.testing.assert_array_equal(
        np.array(table["challenger"].to_pylist(), dtype=np.float32), answers.challenger.astype(np.float32)
    )


def test_classes_that_are_left_out_are_no_part_of_what_is_read(store):
    index = index_footage(store, "test", left_out=("vault",))
    assert index.classes == ("dive", "jump") and index.segment_ids == ["s0", "s1", "s2", "s3"] and len(index) == 8
    assert (
        index_footage(store, "test", classes=("dive", "jump"), left_out=("vault",)).labels.tolist()
        == index.labels.tolist()
    )
