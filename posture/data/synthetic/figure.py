"""The athlete of generated footage: a jointed figure, its motions, and how it is drawn.

A pose is a row of joint angles. A motion is a closed loop of poses at constant phase speed. Each direction of a loop is
a class: `throw` backwards is `bowl`. So both classes of a pair show the same poses equally often, and only the order
distinguishes them. A loop never returns along its own path (the kicking leg goes forward straight and comes back bent),
so every part of it shows the direction.

Angles are degrees, seen from the figure's right side while it faces right: 0 hangs down, 90 points forward, 180 up.
Knee and elbow angles are the flexion between the two bones. Lengths are shares of the standing height. Figure space: x
forward, y up, z to the figure's right.

Legend: F frames, J joints, 3 = x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

ANGLES = (
    "lift", "lean", "head",
    "hip_right", "knee_right", "hip_left", "knee_left",
    "shoulder_right", "elbow_right", "shoulder_left", "elbow_left",
)  # fmt: skip
"""Columns of a pose. `lift` is the height of the lower foot (share of the standing height); the rest are degrees."""

LOOPS: dict[str, dict[str, tuple[float, ...]]] = {
    "run": {
        "lift": (0, 0, 0.005, 0.04, 0, 0, 0.005, 0.04),
        "lean": (10,) * 8,
        "head": (2,) * 8,
        "hip_right": (40, 20, -6, -32, -28, 6, 48, 58),
        "knee_right": (15, 28, 20, 12, 80, 118, 105, 55),
        "hip_left": (-28, 6, 48, 58, 40, 20, -6, -32),
        "knee_left": (80, 118, 105, 55, 15, 28, 20, 12),
        "shoulder_right": (-58, -42, 0, 42, 58, 42, 0, -42),
        "elbow_right": (75, 80, 90, 100, 105, 100, 90, 80),
        "shoulder_left": (58, 42, 0, -42, -58, -42, 0, 42),
        "elbow_left": (105, 100, 90, 80, 75, 80, 90, 100),
    },
    "jump": {
        "lift": (0, 0, 0, 0, 0, 0.01, 0.11, 0.04),
        "lean": (3, 12, 28, 40, 46, 14, -4, 2),
        "head": (0, 2, 4, 6, 4, -8, -10, -4),
        "hip_right": (5, 22, 45, 62, 68, 20, -8, 8),
        "knee_right": (10, 36, 70, 100, 112, 36, 6, 16),
        "hip_left": (8, 26, 49, 66, 72, 24, -2, 12),
        "knee_left": (14, 40, 74, 104, 116, 40, 10, 20),
        "shoulder_right": (-140, -120, -105, -85, -60, 55, 150, 190),
        "elbow_right": (25, 25, 20, 12, 8, 20, 8, 16),
        "shoulder_left": (-134, -114, -99, -79, -54, 61, 156, 196),
        "elbow_left": (25, 25, 20, 12, 8, 20, 8, 16),
    },
    "throw": {
        "lift": (0,) * 8,
        "lean": (-12, -18, -14, 2, 20, 30, 24, 5),
        "head": (6, 10, 8, 0, -8, -12, -10, 0),
        "hip_right": (0, -10, -18, -26, -34, -22, -2, 4),
        "knee_right": (18, 22, 20, 16, 18, 40, 52, 30),
        "hip_left": (15, 38, 58, 52, 44, 36, 22, 12),
        "knee_left": (20, 52, 72, 38, 18, 30, 28, 18),
        "shoulder_right": (-40, -85, -130, -180, -235, -290, -335, -370),
        "elbow_right": (20, 55, 78, 58, 15, 5, 10, 14),
        "shoulder_left": (45, 80, 92, 62, 10, -32, -38, 2),
        "elbow_left": (30, 15, 8, 25, 45, 35, 30, 35),
    },
    "walk": {
        "lift": (0,) * 8,
        "lean": (3,) * 8,
        "head": (2,) * 8,
        "hip_right": (24, 12, -4, -20, -16, 4, 22, 30),
        "knee_right": (6, 12, 8, 6, 36, 56, 44, 18),
        "hip_left": (-16, 4, 22, 30, 24, 12, -4, -20),
        "knee_left": (36, 56, 44, 18, 6, 12, 8, 6),
        "shoulder_right": (-26, -18, 0, 18, 26, 18, 0, -18),
        "elbow_right": (16, 16, 20, 24, 28, 24, 20, 16),
        "shoulder_left": (26, 18, 0, -18, -26, -18, 0, 18),
        "elbow_left": (28, 24, 20, 16, 16, 16, 20, 24),
    },
    "kick": {
        "lift": (0,) * 8,
        "lean": (14, 8, 0, -14, -20, -10, 2, 12),
        "head": (0, 2, 4, 8, 8, 4, 0, -2),
        "hip_right": (-46, -18, 30, 76, 98, 76, 28, -22),
        "knee_right": (85, 42, 10, 3, 34, 108, 120, 110),
        "hip_left": (12, 8, 4, 0, 0, 2, 6, 10),
        "knee_left": (24, 18, 12, 8, 8, 10, 14, 20),
        "shoulder_right": (62, 35, -5, -45, -62, -45, 0, 40),
        "elbow_right": (30, 26, 22, 30, 38, 34, 30, 30),
        "shoulder_left": (-62, -35, 5, 48, 72, 52, 5, -40),
        "elbow_left": (20, 20, 22, 26, 30, 30, 26, 22),
    },
}
"""Eight poses per loop, evenly spaced in phase. A column may end whole turns away from its start (see `TURNS`)."""

TURNS: dict[str, dict[str, int]] = {
    "run": {},
    "jump": {"shoulder_right": 1, "shoulder_left": 1},
    "throw": {"shoulder_right": -1},
    "kick": {},
    "walk": {},
}
"""Whole turns of a joint in one loop, for an arm that circles."""

REVERSED_PAIRS = (("run", "backpedal"), ("jump", "squat"), ("throw", "bowl"), ("kick", "back_heel"))
"""(class that runs its loop forwards, class that runs the same loop backwards)."""

PERIOD_SECONDS = {"run": (0.8, 1.05), "jump": (1.1, 1.45), "throw": (0.95, 1.35), "kick": (0.95, 1.3)}
"""Shortest and longest time of one loop; the same for both classes of a pair."""

STAND = np.array([0, 2, 0, 4, 8, -3, 6, 6, 14, -4, 14], dtype=np.float64)
"""An upright, relaxed pose."""

JOINTS = (
    "pelvis", "neck", "head",
    "hip_right", "knee_right", "ankle_right", "toe_right",
    "hip_left", "knee_left", "ankle_left", "toe_left",
    "shoulder_right", "elbow_right", "wrist_right",
    "shoulder_left", "elbow_left", "wrist_left",
)  # fmt: skip
J = {name: index for index, name in enumerate(JOINTS)}

SUPERSAMPLE = 2
"""Athletes are drawn this many times larger than they appear, then averaged down."""
SUBPIXEL_BITS = 4
HALF_CIRCLE = np.linspace(-np.pi / 2, np.pi / 2, 8)
RIM = 0.009
"""Width of the dark rim, share of the standing height."""

Colour = tuple[int, ...]


@dataclass(frozen=True)
class Athlete:
    """A person with the same looks and build in every video. Colours are RGB, lengths shares of the standing height."""

    name: str
    split: str
    skin: Colour
    hair: Colour
    shirt: Colour
    shorts: Colour
    socks: Colour
    shoes: Colour
    cap: bool
    girth: float
    """Thickness of limbs and torso, 1 = average."""
    legs: float
    """Length of the legs, 1 = average; the torso compensates."""
    tempo: float
    """Speed of every motion, 1 = average."""


def loop_pose(motion: str, phase: np.ndarray) -> np.ndarray:
    """Interpolate poses of a motion's loop at the given phases by a Catmull-Rom spline through its eight poses.

    phase: (F,) in loops, any real number. Returns (F, angles) float64; an arm that circles keeps counting turns.
    """
    keys = np.array([LOOPS[motion][angle] for angle in ANGLES], dtype=np.float64).T  # (8, angles)
    turn = 360.0 * np.array([TURNS[motion].get(angle, 0) for angle in ANGLES])
    count = len(keys)
    position = np.asarray(phase, dtype=np.float64) * count
    start = np.floor(position).astype(int)
    weight = (position - start)[:, None]

    def key(index: np.ndarray) -> np.ndarray:
        return keys[index % count] + turn * (index // count)[:, None]

    before, left, right, after = (key(start + offset) for offset in (-1, 0, 1, 2))
    return 0.5 * (
        2 * left
        + (right - before) * weight
        + (2 * before - 5 * left + 4 * right - after) * weight**2
        + (3 * left - before - 3 * right + after) * weight**3
    )


def _direction(degrees: np.ndarray) -> np.ndarray:
    """Return unit vectors (F, 3) in the plane of walking: 0 degrees down, 90 forward."""
    radians = np.deg2rad(degrees)
    return np.stack([np.sin(radians), -np.cos(radians), np.zeros_like(radians)], axis=-1)


def joints(athlete: Athlete, poses: np.ndarray) -> np.ndarray:
    """Compute joint positions (F, J, 3) from poses (F, angles); feet are on the ground (y = 0) unless lifted."""
    angle: dict[str, np.ndarray] = dict(zip(ANGLES, poses.T, strict=True))
    thigh, shank, foot = 0.25 * athlete.legs, 0.245 * athlete.legs, 0.10
    torso = 0.81 - thigh - shank
    points = np.zeros((len(poses), len(JOINTS), 3))

    def put(joint: str, origin: str, degrees: np.ndarray, length: float, sideways: float = 0.0) -> None:
        points[:, J[joint]] = points[:, J[origin]] + length * _direction(degrees) + np.array([0.0, 0.0, sideways])

    up = 180.0 - angle["lean"]
    put("neck", "pelvis", up, torso)
    put("head", "neck", up + angle["head"], 0.105)
    for side, sign in (("right", 1.0), ("left", -1.0)):
        put(f"hip_{side}", "pelvis", up, 0.0, 0.055 * sign)
        put(f"knee_{side}", f"hip_{side}", angle[f"hip_{side}"], thigh, 0.01 * sign)
        shin = angle[f"hip_{side}"] - np.maximum(angle[f"knee_{side}"], 2.0)
        put(f"ankle_{side}", f"knee_{side}", shin, shank)
        # a foot is flat if the shin is nearly upright, and at a right angle to a shin that is swung back
        put(
            f"toe_{side}",
            f"ankle_{side}",
            90.0 + shin * np.clip((np.abs(shin) - 35.0) / 35.0, 0.0, 1.0),
            foot,
            0.01 * sign,
        )
        put(f"shoulder_{side}", "neck", up, -0.035, 0.105 * athlete.girth**0.5 * sign)
        put(f"elbow_{side}", f"shoulder_{side}", angle[f"shoulder_{side}"], 0.165, 0.035 * sign)
        forearm = angle[f"shoulder_{side}"] + np.maximum(angle[f"elbow_{side}"], 2.0)
        put(f"wrist_{side}", f"elbow_{side}", forearm, 0.17)
    feet = [J[name] for name in ("ankle_right", "toe_right", "ankle_left", "toe_left")]
    lowest = points[:, feet, 1].min(axis=1)
    points[..., 1] += (angle["lift"] - lowest + 0.025)[:, None]
    return points


def turn(points: np.ndarray, yaw_degrees: np.ndarray) -> np.ndarray:
    """Turn joints (F, J, 3) about the vertical: yaw 0 faces right, 180 left, 90 the camera.

    Returns (F, J, 3): right, up, towards the camera. The camera looks down a little, so nearer points appear lower.
    """
    radians = np.deg2rad(yaw_degrees)[:, None]
    x, y, z = np.moveaxis(points, -1, 0)
    right = x * np.cos(radians) - z * np.sin(radians)
    near = x * np.sin(radians) + z * np.cos(radians)
    return np.stack([right, y - 0.15 * near, near], axis=-1)


def _bones(athlete: Athlete) -> list[tuple[str, str, float, float, Colour]]:
    """Return (from joint, to joint, start radius, end radius, colour) of every limb."""
    girth = athlete.girth
    bones = [
        ("pelvis", "neck", 0.062 * girth, 0.075 * girth, athlete.shirt),
        ("neck", "head", 0.030, 0.034, athlete.skin),
    ]
    for side in ("right", "left"):
        bones += [
            (f"hip_{side}", f"knee_{side}", 0.056 * girth, 0.040 * girth, athlete.shorts),
            (f"knee_{side}", f"ankle_{side}", 0.038 * girth, 0.025 * girth, athlete.socks),
            (f"ankle_{side}", f"toe_{side}", 0.028, 0.020, athlete.shoes),
            (f"shoulder_{side}", f"elbow_{side}", 0.037 * girth, 0.029 * girth, athlete.shirt),
            (f"elbow_{side}", f"wrist_{side}", 0.028 * girth, 0.024 * girth, athlete.skin),
        ]
    return bones


def _capsules(starts: np.ndarray, ends: np.ndarray, start_radii: np.ndarray, end_radii: np.ndarray) -> np.ndarray:
    """Return outlines (B, 16, 2) int32, in steps of `_fill`, of tapered limbs with round ends.

    starts, ends: (B, 2) in pixels. radii: (B,) in pixels.
    """
    along = ends - starts
    heading = np.arctan2(along[:, 1], along[:, 0])[:, None] + HALF_CIRCLE  # (B, 8)
    arc = np.stack([np.cos(heading), np.sin(heading)], axis=-1)  # (B, 8, 2)
    outlines = np.concatenate(
        [ends[:, None] + end_radii[:, None, None] * arc, starts[:, None] - start_radii[:, None, None] * arc], axis=1
    )
    return np.rint(outlines * (SUPERSAMPLE << SUBPIXEL_BITS)).astype(np.int32)


def _fill(layer: np.ndarray, outline: np.ndarray, colour: Colour, gain: float = 1.0) -> None:
    red, green, blue = colour
    paint = (min(255, round(red * gain)), min(255, round(green * gain)), min(255, round(blue * gain)), 255)
    cv2.fillConvexPoly(layer, outline, paint, cv2.LINE_AA, SUBPIXEL_BITS)


def draw(layer: np.ndarray, athlete: Athlete, *, points: np.ndarray, height_pixels: float, facing: float) -> None:
    """Draw an athlete, limb by limb from the far side to the near side, each with a dark rim and a lit upper edge.

    layer: (SUPERSAMPLE * H, SUPERSAMPLE * W, 4) uint8 premultiplied RGBA, changed in place. points: (J, 3) in pixels of
    the H x W frame: right, down, towards the camera. height_pixels: the athlete's standing height. facing: -1 left, 0
    towards the camera, 1 right.
    """
    bones = _bones(athlete)
    starts, ends = points[[J[bone[0]] for bone in bones]], points[[J[bone[1]] for bone in bones]]  # (B, 3)
    radii = height_pixels * np.array([bone[2:4] for bone in bones]).T  # (2, B)
    rim = RIM * height_pixels
    light = -0.25 * radii.min(axis=0)[:, None]  # up and to the left
    dark = _capsules(starts[:, :2], ends[:, :2], *(radii + rim))
    flat = _capsules(starts[:, :2], ends[:, :2], *radii)
    lit = _capsules(starts[:, :2] + light, ends[:, :2] + light, *(0.5 * radii))
    depth = (starts[:, 2] + ends[:, 2]) / 2
    for number in np.argsort(depth, kind="stable"):
        colour = bones[number][4]
        shade = min(max(1.0 + 2.2 * float(depth[number]) / height_pixels, 0.72), 1.05)  # the far arm and leg are darker
        _fill(layer, dark[number], colour, 0.35 * shade)
        _fill(layer, flat[number], colour, shade)
        _fill(layer, lit[number], colour, 1.18 * shade)
    _draw_head(
        layer, athlete, points[J["neck"], :2], points[J["head"], :2], radius=0.068 * height_pixels, facing=facing
    )


def _draw_head(
    layer: np.ndarray, athlete: Athlete, neck: np.ndarray, centre: np.ndarray, *, radius: float, facing: float
) -> None:
    up = (centre - neck) / max(float(np.hypot(*(centre - neck))), 1e-6)
    face = facing * np.array([-up[1], up[0]])
    chin, brow = centre - 0.3 * radius * up + 0.12 * radius * face, centre + 0.3 * radius * up
    crown, nape = centre + 0.62 * radius * up, centre + 0.1 * radius * up - 0.5 * radius * face
    peak = crown + 1.35 * radius * face - 0.15 * radius * up
    rim, skull, hair, brim = _capsules(
        np.stack([chin, chin, nape, crown]),
        np.stack([brow, brow, crown, peak]),
        radius * np.array([0.98, 0.85, 0.55, 0.3]),
        radius * np.array([1.13, 1.0, 0.78, 0.16]),
    )
    _fill(layer, rim, athlete.skin, 0.35)
    _fill(layer, skull, athlete.skin)
    _fill(layer, hair, athlete.hair)
    if athlete.cap:
        _fill(layer, brim, athlete.hair)
