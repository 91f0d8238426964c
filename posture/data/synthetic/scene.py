"""Render a generated shot: a place, a camera, light, and athletes who move in labelled segments and idle between them.

Everything but the athlete's loop (camera, light, place, position, body, distractors) is drawn independently of the
class. It looks alike forwards and backwards in time: it is constant, a sine of random phase, or independent noise. So
neither one frame nor an unordered set of frames tells the direction of a loop.

Lengths are shares of the frame height; x = 0 is the middle of the stage, y = 0 the top of the frame, y = 1 its bottom.
Legend: F frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from posture.data.synthetic.figure import (
    PERIOD_SECONDS,
    REVERSED_PAIRS,
    STAND,
    SUPERSAMPLE,
    Athlete,
    draw,
    joints,
    loop_pose,
    turn,
)
from posture.data.synthetic.place import paint_place

LOOP_OF = {
    label: (pair[0], direction) for pair in REVERSED_PAIRS for label, direction in zip(pair, (1, -1), strict=True)
}
"""class -> (loop, direction 1 or -1)"""

BLEND_SECONDS = 0.32
WALK_PERIOD_SECONDS = 1.1


@dataclass(frozen=True)
class Wave:
    """amplitude * sin(2 pi (t / period + phase)). A random phase makes it alike at all times and in both directions."""

    amplitude: float
    period_seconds: float
    phase: float

    def at(self, seconds: np.ndarray | float) -> np.ndarray:
        return self.amplitude * np.sin(2 * np.pi * (seconds / self.period_seconds + self.phase))


@dataclass(frozen=True)
class Segment:
    """A labelled motion: only frames `start_frame` (inclusive) to `end_frame` (exclusive) show its loop."""

    label: str
    start_frame: int
    end_frame: int
    phase: float
    """Position of the first frame in the loop; uniform, so that no frame number implies a pose."""
    tempo: float
    """0 = shortest period of the loop, 1 = longest."""
    yaw_degrees: float
    x: float
    walk_here: bool
    """Walk to this segment's place; otherwise stand until it begins."""
    style_degrees: tuple[float, ...]
    """Added to every pose, because no one moves the same way twice."""


@dataclass(frozen=True)
class Actor:
    """An athlete in a shot; without segments, a bystander who stands at (x, ground)."""

    athlete: Athlete
    height: float
    ground: float
    x: float
    yaw_degrees: float
    segments: tuple[Segment, ...]
    sway: tuple[Wave, Wave]
    """Slow drift in x (share of the frame height) and in lean (degrees)."""


@dataclass(frozen=True)
class Camera:
    pan: tuple[Wave, Wave]
    """Swing in x and y, share of the frame height; the athlete is followed, the background moves."""
    shake: tuple[Wave, Wave]
    zoom: Wave
    """Logarithm of the scale."""
    roll: Wave
    """Degrees, around `roll_degrees`."""
    roll_degrees: float


@dataclass(frozen=True)
class Light:
    gain: float
    flicker: Wave
    tint: tuple[float, float, float]
    vignette: float
    grain: float
    """Standard deviation of the sensor noise, in grey levels of 255."""


@dataclass(frozen=True)
class Scene:
    """Full description of a shot; rendering it is a pure function of this value."""

    height: int
    width: int
    fps: float
    frames: int
    place: str
    seed: tuple[int, ...]
    """Seed of textures and grain."""
    camera: Camera
    light: Light
    ball: tuple[Wave, Wave] | None
    """Ball that wanders through the background: x around 0, y around 0.45."""
    actors: tuple[Actor, ...]
    """Actors from the farthest to the nearest."""

    @property
    def performers(self) -> tuple[Actor, ...]:
        """The athletes whose actions are labelled; the others are bystanders."""
        return tuple(actor for actor in self.actors if actor.segments)


def _smooth(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def _loop(segment: Segment, athlete: Athlete, frames: np.ndarray, fps: float) -> np.ndarray:
    """Return poses (F, angles) of the segment at the given frame numbers, without an arm's whole turns."""
    motion, direction = LOOP_OF[segment.label]
    shortest, longest = PERIOD_SECONDS[motion]
    period_seconds = (shortest + segment.tempo * (longest - shortest)) / athlete.tempo
    poses = loop_pose(motion, segment.phase + direction * (frames - segment.start_frame) / fps / period_seconds)
    poses = poses + np.array(segment.style_degrees)
    poses[:, 1:] = (poses[:, 1:] + 180.0) % 360.0 - 180.0
    return poses


def perform(actor: Actor, frames: int, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute an actor's motion in a whole shot: poses (F, angles), yaw in degrees (F,), x (F,)."""
    numbers = np.arange(frames)
    seconds = numbers / fps
    stand = np.tile(STAND, (frames, 1))
    stand[:, 1] += actor.sway[1].at(seconds)
    walk = loop_pose("walk", seconds / WALK_PERIOD_SECONDS * actor.athlete.tempo)
    poses, yaw, x = stand.copy(), np.full(frames, actor.yaw_degrees), np.full(frames, actor.x)
    blend = max(2.0, BLEND_SECONDS * fps)
    before: Segment | None = None
    for after in (*actor.segments, None):
        first = before.end_frame if before else 0
        last = after.start_frame if after else frames
        gap = numbers[first:last]
        idle = walk[gap] if before and after and after.walk_here else stand[gap]
        share = _smooth((gap - first + 1) / (last - first + 1))
        ends = [segment for segment in (before, after) if segment]
        if ends:
            yaw[gap] = (1 - share) * ends[0].yaw_degrees + share * ends[-1].yaw_degrees
            x[gap] = (1 - share) * ends[0].x + share * ends[-1].x
        if before:
            away = _smooth((gap - first + 1) / blend)[:, None]
            idle = (1 - away) * _loop(before, actor.athlete, np.array([first - 1]), fps) + away * idle
        if after:
            near = _smooth((last - gap) / blend)[:, None]
            idle = (1 - near) * _loop(after, actor.athlete, np.array([last]), fps) + near * idle
            own = numbers[after.start_frame : after.end_frame]
            poses[own] = _loop(after, actor.athlete, own, fps)
            yaw[own], x[own] = after.yaw_degrees, after.x
        poses[gap] = idle
        before = after
    return poses, yaw, x + actor.sway[0].at(seconds)


class Shot:
    """A scene with its background painted and its motions computed, ready to render any frame."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        height, width = scene.height, scene.width
        seconds = np.arange(scene.frames) / scene.fps
        textures, grain = (np.random.default_rng([*scene.seed, purpose]) for purpose in (0, 1))
        self.place = paint_place(scene.place, textures, height=height, width=width)  # wider and higher than the frame
        self.transforms = self._camera(seconds)
        self.ball = np.stack([wave.at(seconds) for wave in scene.ball], axis=1) + (0.0, 0.45) if scene.ball else None
        self.bodies = []
        for actor in scene.actors:
            poses, yaw, x = perform(actor, scene.frames, scene.fps)
            self.bodies.append((turn(joints(actor.athlete, poses), yaw), np.cos(np.deg2rad(yaw)), x))
        self.gain = scene.light.gain * (1 + scene.light.flicker.at(seconds))
        down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        vignette = 1 - scene.light.vignette * (down**2 + across**2) / 2
        self.tone = (vignette[..., None] * np.array(scene.light.tint)).astype(np.float32)  # (H, W, 3)
        noise = scene.light.grain * grain.standard_normal((2 * height, 2 * width), dtype=np.float32)
        self.grain = cv2.merge([noise, noise, noise])
        self.grain_corner = grain.integers(0, (height, width), size=(scene.frames, 2))

    def _camera(self, seconds: np.ndarray) -> np.ndarray:
        """Return affine maps (F, 2, 3) from the place's pixels to the frame's."""
        camera, (height, width) = self.scene.camera, (self.scene.height, self.scene.width)
        centre = np.array([self.place.shape[1] / 2, self.place.shape[0] / 2])
        shift = np.stack(
            [pan.at(seconds) + shake.at(seconds) for pan, shake in zip(camera.pan, camera.shake, strict=True)], axis=1
        )
        scale = np.exp(camera.zoom.at(seconds))
        roll = np.deg2rad(camera.roll_degrees + camera.roll.at(seconds))
        maps = np.zeros((len(seconds), 2, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = scale * np.cos(roll)
        maps[:, 0, 1], maps[:, 1, 0] = -scale * np.sin(roll), scale * np.sin(roll)
        looked_at = centre + shift * height
        maps[:, :, 2] = np.array([width / 2, height / 2]) - np.einsum("fij,fj->fi", maps[:, :, :2], looked_at)
        return maps

    def _body(self, actor: int, index: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return an actor's joints, the position of the shadow (2,) and the standing height, in frame pixels.

        Joints are (J, 3): right, down, towards the camera.
        """
        scene, camera = self.scene, self.scene.camera
        who, (points, _, x) = scene.actors[actor], self.bodies[actor]
        second = index / scene.fps
        followed = 0.8 * float(camera.pan[0].at(second)) if who.segments else 0.0
        stage = np.array([x[index] + followed, who.ground - 0.5]) * scene.height + np.array([
            self.place.shape[1] / 2,
            self.place.shape[0] / 2,
        ])
        size = who.height * scene.height
        matrix = self.transforms[index]
        scale = float(np.hypot(*matrix[:, 0]))
        flat = stage + points[index, :, :2] * (size, -size)
        placed = np.concatenate([flat @ matrix[:, :2].T + matrix[:, 2], points[index, :, 2:] * size * scale], axis=1)
        shadow = (stage + np.array([points[index, :, 0].mean() * size, 0.0])) @ matrix[:, :2].T + matrix[:, 2]
        return placed, shadow, size * scale

    def frame(
        self, index: int, *, without: tuple[str, ...] = ()
    ) -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
        """Render one frame; return it and the boxes of the athletes in it.

        without: names of athletes to leave out (their shadows stay). Returns uint8 (H, W, 3) RGB and name -> (x1, y1,
        x2, y2), the smallest box in whole pixels, x2 and y2 exclusive, around all pixels that the athlete's drawing
        touches, hidden or not. An athlete outside the frame has no box.
        """
        scene = self.scene
        height, width = scene.height, scene.width
        image = cv2.warpAffine(
            self.place,
            self.transforms[index],
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        bodies = [self._body(number, index) for number in range(len(scene.actors))]
        image = self._paint_ground(image, index, bodies)
        boxes = {}
        for number, (points, _, size) in enumerate(bodies):
            athlete = scene.actors[number].athlete
            if athlete.name in without:
                continue
            layer = np.zeros((SUPERSAMPLE * height, SUPERSAMPLE * width, 4), np.uint8)
            draw(layer, athlete, points=points, height_pixels=size, facing=float(self.bodies[number][1][index]))
            layer = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA)
            rows, columns = np.flatnonzero(layer[..., 3].any(axis=1)), np.flatnonzero(layer[..., 3].any(axis=0))
            if not len(rows):
                continue
            x1, y1, x2, y2 = (int(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            boxes[athlete.name] = (x1, y1, x2, y2)
            image[y1:y2, x1:x2] = _over(image[y1:y2, x1:x2], layer[y1:y2, x1:x2])
        top, left = self.grain_corner[index]
        lit = cv2.multiply(image, self.tone, scale=self.gain[index], dtype=cv2.CV_32F)
        return cv2.add(lit, self.grain[top : top + height, left : left + width], dtype=cv2.CV_8U), boxes

    def _paint_ground(self, image: np.ndarray, index: int, bodies: list) -> np.ndarray:
        """Draw soft shadows under the athletes, and the ball."""
        layer = np.zeros((SUPERSAMPLE * self.scene.height, SUPERSAMPLE * self.scene.width, 4), np.uint8)
        for _, shadow, size in bodies:
            centre = tuple(round(float(value) * SUPERSAMPLE) for value in shadow)
            cv2.ellipse(
                layer,
                centre,
                (int(0.2 * size * SUPERSAMPLE), int(0.045 * size * SUPERSAMPLE)),
                0,
                0,
                360,
                (0, 0, 0, 90),
                -1,
            )
        if self.ball is not None:
            matrix = self.transforms[index]
            point = (self.ball[index] - (0.0, 0.5)) * self.scene.height + np.array([
                self.place.shape[1] / 2,
                self.place.shape[0] / 2,
            ])
            point = (point @ matrix[:, :2].T + matrix[:, 2]) * SUPERSAMPLE
            cv2.circle(
                layer,
                tuple(round(float(value)) for value in point),
                max(2, round(0.022 * self.scene.height * SUPERSAMPLE)),
                (235, 225, 120, 255),
                -1,
            )
        return _over(image, cv2.resize(layer, (self.scene.width, self.scene.height), interpolation=cv2.INTER_AREA))


def _over(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Blend a premultiplied RGBA layer over an RGB image, both uint8."""
    clear = 255 - layer[..., 3]
    return cv2.add(
        cv2.multiply(image, cv2.merge([clear, clear, clear]), scale=1 / 255), cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)
    )
