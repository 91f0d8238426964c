"""Views of unlabelled clips for pretraining: in what order and how fast frames play, and how they are turned.

A network that tells them apart has to see motion and posture (Jenni 2020, arXiv 2007.10730; Jing 2018, arXiv
1811.11387). A transformation is a way of playing together with a turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLAYS = ("forwards", "backwards", "twice as fast", "shuffled")
"""Ways of playing a clip. `shuffled`: its quarters in another order, neither forwards nor backwards."""
TURNS = 4
"""Turns by 0, 90, 180 and 270 degrees."""
TRANSFORMATIONS = tuple(f"{play}, turned by {90 * turn} degrees" for play in PLAYS for turn in range(TURNS))
PARTS = 4
COMPARED = PLAYS[:3]
"""Ways of playing that contrast tells apart."""
MOST_STILL = 0.7
"""Largest share of another clip's still frame that is mixed into a view (Wang 2021, arXiv 2009.05769)."""
EMBEDDING = 64
"""Numbers that describe a view when it is compared with others."""


def pretext_outputs(pretext: str) -> tuple[str, ...]:
    """Return the names of a network's outputs for a run's `pretext`: transformations or contrast."""
    embedding = tuple(f"embedding {number}" for number in range(EMBEDDING))
    return {"transformations": TRANSFORMATIONS, "contrast": embedding}[pretext]


@dataclass(frozen=True)
class PretextView:
    """How one view of a clip is played and turned."""

    frames: np.ndarray
    """(T,) int64, indices of stored frames."""
    turns: int = 0
    """Number of quarter turns, counterclockwise."""
    label: int = 0
    """Index in `TRANSFORMATIONS`."""
    still: float = 0.0
    """Share of the view that is a still frame of another clip."""


def draw_transformation(stored: int, frames: int, *, step: int, generator: np.random.Generator) -> PretextView:
    """Return a randomly transformed view of a clip of `stored` frames: `frames` of them, every `step`-th one.

    A view of fewer than four frames is never shuffled.
    """
    play = int(generator.integers(len(PLAYS) if frames >= PARTS else len(PLAYS) - 1))
    turn = int(generator.integers(TURNS))
    indices = played(stored, frames, play=PLAYS[play], step=step, generator=generator)
    return PretextView(indices, turn, play * TURNS + turn)


def draw_compared(stored: int, frames: int, *, play: str, step: int, generator: np.random.Generator) -> PretextView:
    """Return a view of a clip that is played as `play` says, with a still frame mixed in by chance."""
    indices = played(stored, frames, play=play, step=step, generator=generator)
    return PretextView(indices, still=float(generator.random()) * MOST_STILL)


def played(stored: int, frames: int, *, play: str, step: int, generator: np.random.Generator) -> np.ndarray:
    """Return the indices (frames,) int64 of the stored frames of a view, from a random one, played as one of `PLAYS`.

    If the view is longer than what is stored, it plays to the end and back again.
    """
    indices = there_and_back(stored, frames, step=step * (2 if play == "twice as fast" else 1), generator=generator)
    if play == "backwards":
        return indices[::-1].copy()
    if play != "shuffled":
        return indices
    quarters, order = np.array_split(indices, PARTS), generator.permutation(PARTS)
    while abs(np.diff(order)).max() == 1:  # forwards or backwards
        order = generator.permutation(PARTS)
    return np.concatenate([quarters[part] for part in order])


def there_and_back(stored: int, frames: int, *, step: int, generator: np.random.Generator) -> np.ndarray:
    """Return the indices (frames,) int64 of every `step`-th stored frame from a random one, playing back from the end.

    The start is such that the view fits, if it can.
    """
    latest = max(0, stored - ((frames - 1) * step + 1))
    places = int(generator.integers(latest + 1)) + step * np.arange(frames)
    places %= max(1, 2 * (stored - 1))
    return np.where(places < stored, places, 2 * (stored - 1) - places)
