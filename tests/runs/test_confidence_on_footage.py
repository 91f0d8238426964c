"""The promised error on athletes whom neither network nor threshold has seen, in 100 divisions of generated footage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.data.synthetic.figure import REVERSED_PAIRS
from posture.data.synthetic.footage import generate
from posture.errors import InputError
from posture.runs.confidence import fit

ATHLETES, TRAIN, VAL = 160, 15, 40
DIVISIONS = 100
RECIPE = DecodeRecipe(24, 24, 12, 1, 1, crop=crop_name(0.2))
MOTIONS = {label: number for number, pair in enumerate(REVERSED_PAIRS) for label in pair}
PROMISE = 0.2


def seen(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where in the crop there is motion (N, 16), which motion it is (N,), and the number of the athlete (N,)."""
    footage = generate(
        folder / "footage", videos=ATHLETES, athletes=ATHLETES, segments_per_video=3, size=(64, 96), fps=10, workers=1
    )
    store = Store(str(folder / "store"), create=True)
    report = ingest_clips(read_tracked_footage(str(footage)), store, IngestOptions(cut=Cut(RECIPE, min_frames=8)))
    assert (report.segments, report.refused) == (3 * ATHLETES, [])
    segments = {row["segment"]: row for row in store.read("segments").to_pylist()}
    moving, motions, athletes = [], [], []
    for row in store.read("clips").to_pylist():
        frames = decode_frames(row["pixels"], row["offsets"], (row["frames"], 24, 24)).mean(axis=3) / 255
        change = np.abs(np.diff(frames, axis=0)).mean(axis=0)
        moving.append(change.reshape(4, 6, 4, 6).mean(axis=(1, 3)).ravel())
        motions.append(MOTIONS[segments[row["segment"]]["label"]])
        athletes.append(int(segments[row["segment"]]["group"].rpartition("_")[2]))
    found = np.array(moving, np.float32)
    return (found - found.mean(axis=0)) / found.std(axis=0), np.array(motions), np.array(athletes)


def linear(features: np.ndarray, labels: np.ndarray) -> torch.nn.Linear:
    """Fit multinomial logistic regression."""
    network = torch.nn.Linear(features.shape[1], len(REVERSED_PAIRS))
    for values in network.parameters():
        torch.nn.init.zeros_(values)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=60)
    given = torch.from_numpy(features), torch.from_numpy(labels)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(network(given[0]), given[1]) + 0.01 * network.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return network


@pytest.mark.slow
def test_the_error_of_what_is_answered_about_new_athletes_lies_inside_its_interval(tmp_path: Path) -> None:
    """In at least 85 % of the divisions; at least 88 % keep the promise, which the network alone does not keep.

    An exact interval would do so in 95 %, and less often here: the error of the other athletes is measured too.
    """
    features, motions, athletes = seen(tmp_path)
    inside, kept, answered, alone = [], [], [], []
    for seed in range(DIVISIONS):
        order = np.random.default_rng(seed).permutation(ATHLETES)
        train, val, test = (np.isin(athletes, part) for part in np.split(order, [TRAIN, TRAIN + VAL]))
        network = linear(features[train], motions[train])
        with torch.inference_mode():
            scores = network(torch.from_numpy(features)).softmax(dim=1).numpy()
        fitted = fit(scores[val], motions[val], [str(name) for name in athletes[val]])
        calibrated = fitted.apply(scores[test])
        wrong = calibrated.argmax(axis=1) != motions[test]
        alone.append(wrong.mean())
        try:
            chosen = fitted.threshold(PROMISE)
        except InputError:
            continue
        sure = calibrated.max(axis=1) >= chosen.value
        inside.append(chosen.low <= wrong[sure].mean() <= chosen.high)
        kept.append(wrong[sure].mean() <= PROMISE)
        answered.append(sure.mean())
    assert len(inside) >= 0.7 * DIVISIONS
    assert np.mean(inside) >= 0.85 and np.mean(kept) >= 0.88, (np.mean(inside), np.mean(kept))
    assert np.mean(alone) > PROMISE and 0.3 < np.mean(answered) < 0.95, (np.mean(alone), np.mean(answered))
