"""Plan generated footage: who does what, where and when, drawn at random from the arguments alone.

If a video shows several athletes, each has a time line of its own. Between two actions an athlete walks to another
place, past the others: places are dealt anew for every action. Nearer athletes hide farther ones.
"""

from __future__ import annotations

import numpy as np

from posture.data.synthetic.figure import ANGLES, REVERSED_PAIRS, Athlete
from posture.data.synthetic.place import PLACES
from posture.data.synthetic.scene import Actor, Camera, Light, Scene, Segment, Wave

VERSION = 1

CLASSES: tuple[str, ...] = tuple(label for pair in REVERSED_PAIRS for label in pair)

SEGMENT_SECONDS = (1.5, 2.6)
GAP_SECONDS = (0.4, 0.8)
CROSSING_SECONDS = (1.2, 2.0)
"""Time between two actions of an athlete who is not alone, enough to walk past the others."""
MOST_ATHLETES = 6
"""Maximum number of athletes in a video."""
SPLIT_SHARES = (("val", 0.15), ("test", 0.2))
"""Shares of the athletes, at least as many as a video shows; the rest are train."""

SKIN = ((246, 211, 184), (229, 184, 148), (198, 146, 108), (150, 102, 70), (106, 70, 50), (74, 50, 38))
HAIR = ((34, 28, 26), (74, 48, 32), (122, 82, 44), (196, 160, 92), (150, 62, 36), (90, 90, 96))
CLOTH = (
    (206, 40, 44), (34, 78, 182), (250, 204, 40), (244, 244, 244), (34, 140, 84),
    (240, 120, 30), (116, 60, 160), (36, 40, 52), (40, 190, 200), (236, 110, 160),
)  # fmt: skip


def plan(
    *,
    videos: int,
    seed: int,
    size: tuple[int, int],
    fps: float,
    athletes: int,
    segments_per_video: int,
    athletes_per_video: int = 1,
) -> list[Scene]:
    """Plan the scenes of the footage, one per video. Athletes take turns, and each one's classes are dealt evenly.

    `segments_per_video` counts the actions of one athlete. All athletes of a video are in one split.
    """
    people = _cast(athletes, athletes_per_video, np.random.default_rng([VERSION, seed, 0]))
    decks: dict[str, list[str]] = {person.name: [] for person in people}
    dealer = np.random.default_rng([VERSION, seed, 1])
    scenes = []
    for number in range(videos):
        person = people[number % athletes]
        team = [other for other in people if other.split == person.split and other is not person]
        look = {"seed": (VERSION, seed, 2, number), "size": size, "fps": fps}
        if athletes_per_video == 1:
            (labels,) = _deal([decks[person.name]], segments_per_video, dealer)
            scenes.append(stage(person, labels, team, **look))
        else:
            others = dealer.permutation(len(team))[: athletes_per_video - 1]
            cast = [person, *(team[index] for index in others)]
            dealt = _deal([decks[one.name] for one in cast], segments_per_video, dealer)
            scenes.append(stage_together(cast, dealt, **look))
    return scenes


def _deal(decks: list[list[str]], count: int, dealer: np.random.Generator) -> list[list[str]]:
    """Take `count` labels from each deck, and return them by deck. The decks' n-th labels differ if they can."""
    for deck in decks:
        while len(deck) < count:
            deck.extend(CLASSES[index] for index in dealer.permutation(len(CLASSES)))
    dealt: list[list[str]] = [[] for _ in decks]
    for number in range(count):
        taken: set[str] = set()
        for deck, labels in zip(decks, dealt, strict=True):
            place = next((place for place, label in enumerate(deck) if label not in taken), 0)
            labels.append(deck.pop(place))
            taken.add(labels[number])
    return dealt


def _cast(count: int, together: int, rng: np.random.Generator) -> list[Athlete]:
    """Create the athletes with their looks and splits; every split has at least as many as a video shows `together`."""
    held_out = [split for split, share in SPLIT_SHARES for _ in range(max(together, round(share * count)))]
    splits = rng.permutation(held_out + ["train"] * (count - len(held_out)))

    def pick(colours: tuple, spread: int) -> tuple[int, ...]:
        colour = np.array(colours[rng.integers(len(colours))]) + rng.integers(-spread, spread + 1, 3)
        return tuple(int(channel) for channel in np.clip(colour, 12, 250))

    people = []
    for number, split in enumerate(splits):
        skin = pick(SKIN, 8)
        person = Athlete(
            name=f"athlete_{number:02d}",
            split=str(split),
            skin=skin,
            hair=pick(HAIR, 10),
            shirt=pick(CLOTH, 14),
            shorts=pick(CLOTH, 14),
            socks=skin if rng.random() < 0.5 else pick(CLOTH, 14),
            shoes=pick(CLOTH, 14),
            cap=bool(rng.random() < 0.5),
            girth=float(rng.uniform(1.0, 1.35)),
            legs=float(rng.uniform(0.94, 1.05)),
            tempo=float(rng.uniform(0.9, 1.1)),
        )
        people.append(person)
    return people


def _wave(rng: np.random.Generator, amplitude: float, period_seconds: tuple[float, float]) -> Wave:
    return Wave(float(amplitude * rng.uniform(0.4, 1.0)), float(rng.uniform(*period_seconds)), float(rng.random()))


def stage(
    person: Athlete, labels: list[str], team: list[Athlete], *, seed: tuple[int, ...], size: tuple[int, int], fps: float
) -> Scene:
    """Draw one scene at random. Nothing drawn here depends on the labels."""
    rng = np.random.default_rng(seed)
    segments, frame, x = [], round(rng.uniform(*GAP_SECONDS) * fps), float(rng.uniform(-0.12, 0.12))
    for label in labels:
        walk = bool(rng.random() < 0.5)
        x = float(rng.uniform(-0.16, 0.16)) if walk else x
        length = round(rng.uniform(*SEGMENT_SECONDS) * fps)
        segments.append(_segment(rng, label, range(frame, frame + length), x=x, walk=walk))
        frame += length + round(rng.uniform(*GAP_SECONDS) * fps)
    sway = (_wave(rng, 0.015, (2, 4)), _wave(rng, 2.5, (2, 3.5)))
    star = Actor(
        person, float(rng.uniform(0.62, 0.68)), float(rng.uniform(0.89, 0.92)), 0.0, 0.0, tuple(segments), sway
    )
    bystanders = []
    if team and rng.random() < 0.3:
        other = team[rng.integers(len(team))]
        side = 1 if rng.random() < 0.5 else -1
        drift = (_wave(rng, 0.03, (3, 6)), _wave(rng, 4, (2, 4)))
        place = (float(rng.uniform(0.34, 0.44)), float(rng.uniform(0.68, 0.74)), side * float(rng.uniform(0.3, 0.55)))
        bystanders.append(Actor(other, *place, float(rng.uniform(0, 180)), (), drift))
    return _shot(rng, (*bystanders, star), frame, seed=seed, size=size, fps=fps)


def stage_together(
    cast: list[Athlete], labels: list[list[str]], *, seed: tuple[int, ...], size: tuple[int, int], fps: float
) -> Scene:
    """Draw one scene of several athletes at random, with the labels of each. Nothing drawn here depends on them.

    Athletes are painted from the farthest to the nearest, in random order.
    """
    rng = np.random.default_rng(seed)
    count, rounds = len(cast), len(labels[0])
    edge = max(0.5 * size[1] / size[0] - 0.25, 0.12)
    places = np.linspace(-edge, edge, count)
    slots = [rng.permutation(count)]
    while len(slots) < rounds:  # everyone moves on, so that paths cross
        slots.append((slots[-1] + rng.integers(1, count)) % count)
    depths = rng.permutation(count) / (count - 1)
    actors, frames = [], 0
    for number in np.argsort(depths):
        segments, frame = [], round(rng.uniform(*GAP_SECONDS) * fps)
        for label, slot in zip(labels[number], slots, strict=True):
            length = round(rng.uniform(*SEGMENT_SECONDS) * fps)
            x = float(places[slot[number]] + rng.uniform(-0.03, 0.03))
            segments.append(_segment(rng, label, range(frame, frame + length), x=x, walk=True))
            frame += length + round(rng.uniform(*CROSSING_SECONDS) * fps)
        frames = max(frames, segments[-1].end_frame + round(rng.uniform(*GAP_SECONDS) * fps))
        sway = (_wave(rng, 0.015, (2, 4)), _wave(rng, 2.5, (2, 3.5)))
        height, ground = (0.44, 0.8) + depths[number] * np.array([0.12, 0.11])
        actors.append(
            Actor(cast[number], float(height * rng.uniform(0.97, 1.03)), float(ground), 0.0, 0.0, tuple(segments), sway)
        )
    return _shot(rng, tuple(actors), frames, seed=seed, size=size, fps=fps)


def _segment(rng: np.random.Generator, label: str, frames: range, *, x: float, walk: bool) -> Segment:
    return Segment(
        label=label,
        start_frame=frames.start,
        end_frame=frames.stop,
        phase=float(rng.random()),
        tempo=float(rng.random()),
        yaw_degrees=float(rng.uniform(-20, 20) + 180 * (rng.random() < 0.5)),
        x=x,
        walk_here=walk,
        style_degrees=(0.0, *rng.normal(0, 3, len(ANGLES) - 1).tolist()),
    )


def _shot(
    rng: np.random.Generator,
    actors: tuple[Actor, ...],
    frames: int,
    *,
    seed: tuple[int, ...],
    size: tuple[int, int],
    fps: float,
) -> Scene:
    """Draw camera, light and place of a scene."""
    camera = Camera(
        pan=(_wave(rng, 0.12, (5, 10)), _wave(rng, 0.015, (4, 8))),
        shake=(_wave(rng, 0.006, (0.3, 0.8)), _wave(rng, 0.006, (0.3, 0.8))),
        zoom=_wave(rng, 0.04, (4, 9)),
        roll=_wave(rng, 1.5, (3, 7)),
        roll_degrees=float(rng.uniform(-2, 2)),
    )
    light = Light(
        gain=float(rng.uniform(0.8, 1.12)),
        flicker=_wave(rng, 0.03, (0.5, 3)),
        tint=tuple(rng.uniform(0.93, 1.07, 3).tolist()),
        vignette=float(rng.uniform(0.05, 0.35)),
        grain=float(rng.uniform(0.5, 3.0)),
    )
    return Scene(
        height=size[0],
        width=size[1],
        fps=fps,
        frames=frames,
        place=PLACES[rng.integers(len(PLACES))],
        seed=(*seed, 3),
        camera=camera,
        light=light,
        ball=(_wave(rng, 0.6, (4, 9)), _wave(rng, 0.1, (2, 5))) if rng.random() < 0.4 else None,
        actors=actors,
    )
