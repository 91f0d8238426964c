"""Judge tracks against labelled tracks: IDF1 and HOTA.

IDF1 matches whole tracks one to one (Ristani et al., ECCV Workshops 2016, section 3). HOTA is the geometric mean of how
well athletes are detected (DetA) and kept apart (AssA), averaged over 19 thresholds of overlap (Luiten et al., IJCV
2021, equations 15 to 25). Both are computed as TrackEval does, the authors' code.

Legend: a look is (ids, boxes) of one frame: (n,) and (n, 4) xyxy; A thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from posture.predict.answers import Track

Look = tuple[np.ndarray, np.ndarray]

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""(A,) least overlaps of a match in HOTA."""
IDENTITY_OVERLAP = 0.5
"""Least overlap of a match in IDF1."""
ROUNDING = np.finfo(np.float64).eps


@dataclass(frozen=True)
class TrackCounts:
    """Counts of one video. Add those of several to judge them together."""

    truths: int
    """Labelled boxes."""
    found: int
    """Boxes of the tracks that are judged."""
    identified: int
    """Boxes that are right if every labelled track is matched with one found track or none (IDTP)."""
    matched: np.ndarray
    """(A,) boxes matched frame by frame (HOTA's true positives)."""
    associated: np.ndarray
    """(A,) sum over matched boxes of the Jaccard index of their two tracks."""

    def __add__(self, other: TrackCounts) -> TrackCounts:
        return TrackCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def metrics(self) -> dict[str, float]:
        """Return IDF1 with its precision and recall (IDP, IDR), HOTA, DetA and AssA, 0..1; 0 if nothing is there."""
        either = self.truths + self.found
        detection = self.matched / np.maximum(1, either - self.matched)
        association = self.associated / np.maximum(1, self.matched)
        return {
            "idf1": float(self.identified / max(1.0, 0.5 * either)),
            "idp": float(self.identified / max(1, self.found)),
            "idr": float(self.identified / max(1, self.truths)),
            "hota": float(np.sqrt(detection * association).mean()),
            "deta": float(detection.mean()),
            "assa": float(association.mean()),
        }


def looks_of(tracks: Sequence[Track], frames: Sequence[int]) -> list[Look]:
    """Return ids and boxes of the tracks in each of the ascending frame numbers `frames`.

    In frames between two of a track's own, its box is interpolated, as it is for clips.
    """
    numbers = np.asarray(frames, np.int64)
    ids, boxes = [[] for _ in frames], [[] for _ in frames]
    for track in tracks:
        first, last = np.searchsorted(numbers, track.frames[0]), np.searchsorted(numbers, track.frames[-1], "right")
        sides = [np.interp(numbers[first:last], track.frames, track.boxes[:, side]) for side in range(4)]
        for place, box in enumerate(np.stack(sides, axis=1), start=int(first)):
            ids[place].append(track.id)
            boxes[place].append(box)
    looks = zip(ids, boxes, strict=True)
    return [(np.array(some, np.int64), np.reshape(theirs, (-1, 4)).astype(np.float64)) for some, theirs in looks]


def track_metrics(truths: Sequence[Look], found: Sequence[Look]) -> dict[str, float]:
    """Return the metrics of one video, as `TrackCounts.metrics` does. Raises ValueError as `count_tracks` does."""
    return count_tracks(truths, found).metrics()


def count_tracks(truths: Sequence[Look], found: Sequence[Look]) -> TrackCounts:
    """Compare the found tracks of a video with its labelled ones, frame by frame.

    Raises ValueError if the numbers of frames differ, or an id appears twice in a frame.
    """
    truth_rows, found_rows = _rows(truths), _rows(found)
    boxes_of = [np.bincount(np.concatenate([*rows, np.zeros(0, int)])) for rows in (truth_rows, found_rows)]
    shape = len(boxes_of[0]), len(boxes_of[1])
    near, alike = np.zeros(shape), np.zeros(shape)
    overlaps = list(_overlaps(truths, found))
    for rows, columns, overlap in zip(truth_rows, found_rows, overlaps, strict=True):
        place = np.ix_(rows, columns)
        near[place] += overlap >= IDENTITY_OVERLAP
        around = overlap.sum(axis=0)[None] + overlap.sum(axis=1)[:, None] - overlap
        alike[place] += np.divide(overlap, around, out=np.zeros_like(overlap), where=around > ROUNDING)
    together = boxes_of[0][:, None] + boxes_of[1][None]  # of each pair of tracks
    matches = _matches(truth_rows, found_rows, overlaps, alike / np.maximum(together - alike, ROUNDING))
    jaccard = matches / np.maximum(1, together - matches)
    return TrackCounts(
        truths=int(boxes_of[0].sum()),
        found=int(boxes_of[1].sum()),
        identified=int(near[_best_pairs(near)].sum()),
        matched=matches.sum(axis=(1, 2)),
        associated=(matches * jaccard).sum(axis=(1, 2)),
    )


def pair_tracks(truths: Sequence[Look], found: Sequence[Look]) -> dict[int, int]:
    """Return {id of a found track: id of its labelled track} of the one-to-one pairs that share the most frames, as
    IDF1 matches them. Tracks without a partner are left out.
    """
    ids = [np.unique(np.concatenate([np.zeros(0, np.int64), *(one for one, _ in looks)])) for looks in (truths, found)]
    near = np.zeros((len(ids[0]), len(ids[1])))
    for (true_ids, _), (found_ids, _), overlap in zip(truths, found, _overlaps(truths, found), strict=True):
        near[np.ix_(np.searchsorted(ids[0], true_ids), np.searchsorted(ids[1], found_ids))] += (
            overlap >= IDENTITY_OVERLAP
        )
    return {
        int(ids[1][other]): int(ids[0][one]) for one, other in zip(*_best_pairs(near), strict=True) if near[one, other]
    }


def _matches(
    truth_rows: list[np.ndarray], found_rows: list[np.ndarray], overlaps: list[np.ndarray], alignment: np.ndarray
) -> np.ndarray:
    """Return how often each pair of tracks is matched at each threshold: (A, truths, found).

    In a frame, boxes are paired for the largest sum of overlap times alignment of their tracks.
    """
    matches = np.zeros((len(ALPHAS), *alignment.shape))
    for rows, columns, overlap in zip(truth_rows, found_rows, overlaps, strict=True):
        one, other = _best_pairs(alignment[np.ix_(rows, columns)] * overlap)
        matches[:, rows[one], columns[other]] += overlap[one, other] >= ALPHAS[:, None] - ROUNDING
    return matches


def _best_pairs(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the one-to-one pairs with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(scores, maximize=True)


def _rows(looks: Sequence[Look]) -> list[np.ndarray]:
    """Return the ids of each frame as numbers from 0 without gaps."""
    everyone = np.concatenate([np.asarray(ids) for ids, _ in looks]) if looks else np.zeros(0)
    _, numbers = np.unique(everyone, return_inverse=True)
    rows = np.split(numbers, np.cumsum([len(ids) for ids, _ in looks])[:-1].astype(int))[: len(looks)]
    for frame, row in enumerate(rows):
        if len(np.unique(row)) < len(row):
            raise ValueError(f"frame {frame}: an id appears twice")
    return rows


def _overlaps(truths: Sequence[Look], found: Sequence[Look]) -> Iterator[np.ndarray]:
    """Yield the IoU of the boxes in each frame: (n labelled, n found)."""
    import torch

    from posture.models.boxes import pairwise_iou

    for (_, one), (_, other) in zip(truths, found, strict=True):
        a, b = (torch.from_numpy(np.asarray(boxes, np.float64).reshape(-1, 4)) for boxes in (one, other))
        yield pairwise_iou(a, b).numpy()
