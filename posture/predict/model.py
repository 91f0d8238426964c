"""A trained model that answers about videos: `VideoModel.predict` and `VideoModel.classify`.

Legend: n windows, T frames of a window, H x W pixels of a frame, K classes.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from posture.data.decode.array_frames import stream_array
from posture.data.decode.cut import Clip, Cut
from posture.data.decode.limits import DecodeLimits
from posture.data.decode.sandbox import Sandbox
from posture.data.labels.records import Label, Tube
from posture.data.store.files import absolute, local_copy
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.errors import InputError, Unreadable
from posture.predict.answers import Prediction
from posture.predict.network_threads import NetworkThreads
from posture.predict.passes import Progress, VideoPass
from posture.predict.tracker import TRACKERS
from posture.predict.windows import Sampling
from posture.runs.trained import TrainedModel

WAIT_SECONDS = 120.0
"""Time limit for a few frames of a video."""


class AthleteFinder(Protocol):
    """A detector of athletes."""

    size: int
    """Longest side in pixels of the frames that it gets; smaller frames are not enlarged."""

    def __call__(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes (D, 4) xyxy and scores (D,), 0..1, of the athletes in each of the frames uint8 (n, H, W, 3)."""
        ...


class VideoModel:
    """A classifier, a detector of athletes, or both, in memory; on the GPU if there is one.

    It may be used by several threads. `posture.load` makes one.
    """

    def __init__(
        self,
        classifier: TrainedModel | None = None,
        *,
        detector: TrainedModel | AthleteFinder | None = None,
        calibration: Any = None,
        max_error: float | None = None,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008
    ) -> None:
        """Load the networks.

        Parameters
        ----------
        classifier
            Names the actions; without one, athletes are tracked only.
        detector
            A detector's run, or any function that finds athletes. Without one the whole frame is classified.
        calibration
            A `posture.runs.calibration.Calibration` of the classifier.
        max_error
            Answers that are less sure than the calibration allows for this share of wrong answers are "unsure".
        limits
            Limits of time, memory and pixels of decoding.

        Raises
        ------
        InputError
            If there is neither classifier nor detector, the classifier needs a detector, or val cannot promise
            `max_error`.
        """
        from posture.runs.athlete_finder import Finder
        from posture.runs.weights import load_network
        from posture.train.context import LocalContext

        refuse_unusable(classifier, detector)
        self.classifier, self.detector = classifier, detector
        self.classes: tuple[str, ...] = classifier.classes if classifier else ()
        """Names of the classes, in the order of probabilities; () for a detector alone."""
        self.sampling: Sampling | None = None
        ctx = LocalContext()
        self.device_name = ctx.device_name
        self._device, self._lock, self.limits = ctx.device, threading.Lock(), limits
        self._own = threading.local()
        self._threads = NetworkThreads(ctx.device)
        self._calibration = calibration
        self._threshold = None if max_error is None else calibration.threshold(max_error)
        self._finder: AthleteFinder | None = Finder(detector) if isinstance(detector, TrainedModel) else detector
        self._network = None
        if classifier is not None:
            run = classifier.run
            self.sampling = Sampling(DecodeRecipe.parse(run.data.recipe), run.model.frames, run.data.step)
            with classifier.folder() as place:
                self._network = load_network(run, place).to(self._device)

    def predict(
        self,
        video: str | Path | bytes | np.ndarray,
        *,
        fps: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        overlap: float = 0.5,
        shortest: float | None = None,
        tracker: str = TRACKERS[0],
        fps_cap: float | None = None,
        batch: int = 16,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Prediction:
        """Say who does what and when in a video.

        Parameters
        ----------
        video
            Path or s3:// address, the content of a file, or frames uint8 (frames, H, W, 3) RGB as they are shown.
        fps
            Frame rate of an array of frames; files have their own time stamps.
        start, end
            The part of the video to look at, in seconds.
        overlap
            Share of a window that the next one sees again, from 0 up to 0.95.
        shortest
            Segments that last fewer seconds join a neighbour; half of a window if None.
        tracker
            One of `posture.predict.tracker.TRACKERS`.
        fps_cap
            Look for athletes in at most this many frames per second. Clips have the frame rate of training anyway.
        batch
            Windows per forward pass.
        progress
            Called with the number of frames that are done, and in total.
        should_stop
            Asked every few frames. If it returns True, the answer is about what was seen so far.

        Returns
        -------
        Prediction
            With `failure` if the video ends in an error: the answer is about what could be read.

        Raises
        ------
        InputError
            If no frame of the video can be read, or an option is out of range.
        """
        _check(start, end, overlap, fps_cap)
        of_pass: dict[str, Any] = {"overlap": overlap, "shortest": shortest, "tracker": tracker, "batch": batch}
        name = str(video) if isinstance(video, str | Path) else "array" if isinstance(video, np.ndarray) else "bytes"
        if isinstance(video, str | Path):
            name = absolute(video)
        with self._frames(video, fps, start=start, end=end, fps_cap=fps_cap) as messages:
            return VideoPass(self, name, progress=progress, should_stop=should_stop, **of_pass).run(messages)

    def classify(
        self, video: str | Path, *, start: float = 0.0, end: float | None = None, tube: Tube | None = None
    ) -> np.ndarray:
        """Return the probabilities (K,) float32 of a segment, from `start` to `end` seconds, exactly as `posture
        evaluate` scores it: the mean over the windows that ingest cuts of it.

        `tube` has the athlete's boxes, if the run was trained on clips cut around the athlete. Raises InputError.
        """
        if self.classifier is None or self.sampling is None:
            raise InputError("a detector cannot classify; load a run of a classifier")
        recipe = self.sampling.recipe
        if recipe.crop and tube is None:
            raise InputError("this run was trained on clips cut around the athlete; give the athlete's boxes as `tube`")
        name, clips = absolute(video), []
        label = Label(start, end, "", "", athlete="" if tube is None else tube.name)
        try:
            with local_copy(name) as path, self.decoder() as sandbox:
                cut, tubes = (
                    Cut(replace(recipe, crop=recipe.crop and crop_name(recipe.margin, centred=recipe.centred))),
                    () if tube is None else (tube,),
                )
                for item in sandbox.cut(path, "", [label], cut, tubes=tubes, limit_seconds=WAIT_SECONDS):
                    if isinstance(item, Clip):
                        shape = item.row["frames"], item.row["height"], item.row["width"]
                        clips.append(decode_frames(item.pixels, item.row["offsets"], shape))
        except (OSError, Unreadable) as error:
            raise InputError(f"{name}: the video cannot be read: {error}") from None
        if not clips:
            raise InputError(
                f"{name}: there is no clip from {start:g} s to {'its end' if end is None else f'{end:g} s'}"
            )
        found = self._threads.mapped(lambda part: [self._probabilities([clip])[0] for clip in part], clips)()
        return np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32)

    @contextlib.contextmanager
    def decoder(self) -> Iterator[Sandbox]:
        """Lend a decoder process of this thread, which is kept for its next video, because it takes time to start."""
        sandbox = self._own.__dict__.pop("sandbox", None) or Sandbox(self.limits)
        sandbox.start()  # here, because the process ends with the thread that starts it
        try:
            yield sandbox
        except BaseException:
            sandbox.close()
            raise
        self._own.sandbox = sandbox

    def probabilities(self, clips: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities (n, K) float32 of clips, uint8 (T, H, W, 3) each, as the store has them."""
        return self.probabilities_later(clips)()

    def probabilities_later(self, clips: list[np.ndarray]) -> Callable[[], np.ndarray]:
        """Begin `probabilities` in other threads. Return a function that waits for its result."""
        result = self._threads.mapped(lambda part: list(self._probabilities(part)), clips)
        return lambda: np.stack(result())

    def find(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes (D, 4) and scores (D,) of the athletes in each of the frames uint8 (n, H, W, 3)."""
        return self.find_later(frames)()

    def find_later(self, frames: np.ndarray) -> Callable[[], list[tuple[np.ndarray, np.ndarray]]]:
        """Begin `find` in other threads. Return a function that waits for its result.

        A detector that is not a run of Posture's runs in the thread that waits, one call at a time.
        """
        finder = self._finder
        assert finder is not None
        if isinstance(self.detector, TrainedModel):
            return self._threads.mapped(finder, frames)

        def find() -> list[tuple[np.ndarray, np.ndarray]]:
            with self._lock:
                return finder(frames)

        return find

    def _probabilities(self, clips: list[np.ndarray]) -> np.ndarray:
        """Return the probabilities (n, K) float32 of clips in one forward pass."""
        import torch

        from posture.data.decode.optical_flow import METHODS, flow_of_clip
        from posture.tasks.action import probabilities
        from posture.train.evaluate import clip_outputs
        from posture.train.optim import Precision

        assert self.classifier is not None and self._network is not None
        run = self.classifier.run
        arrays = [
            tuple(
                flow_of_clip(clip, run.data.flow or METHODS[0]) if name == "flow" else clip for name in run.model.inputs
            )
            for clip in clips
        ]
        with torch.inference_mode():
            precision = Precision(run.scale.amp, self._device)
            outputs = clip_outputs(self._network, arrays, run, self._device, precision=precision)
            return probabilities(outputs).cpu().numpy()

    @property
    def look_size(self) -> int | None:
        """Longest side in pixels of frames in which athletes are looked for; None without a detector."""
        return self._finder.size if self._finder else None

    @property
    def threshold(self) -> float:
        """Least confidence of an answer."""
        return self._threshold.value if self._threshold else 0.0

    def calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, K) as segments report them: calibrated if this model has a calibration."""
        return probabilities if self._calibration is None else self._calibration.apply(probabilities)

    @property
    def description(self) -> dict[str, Any]:
        """Return the origin of the answers: run, checkpoint, decode recipe, detector, device."""
        named = {}
        if self.classifier is not None:
            named = {
                "run": self.classifier.uri,
                "checkpoint": self.classifier.checkpoint,
                "weights": self.classifier.digest,
                "recipe": self.classifier.run.data.recipe,
            }
        if isinstance(self.detector, TrainedModel):
            named |= {"detector": self.detector.uri, "detector_weights": self.detector.digest}
        elif self.detector is not None:
            named |= {"detector": type(self.detector).__qualname__}
        confidence = "not calibrated" if self._calibration is None else self._calibration.sentence
        return named | {"confidence": self._threshold.sentence if self._threshold else confidence}

    @contextlib.contextmanager
    def _frames(
        self, video: Any, fps: float | None, *, start: float, end: float | None, fps_cap: float | None
    ) -> Iterator[Iterator[dict[str, Any] | Clip]]:
        recipe = self.sampling.recipe if self.sampling else None
        asked: dict[str, Any] = {"longest": self.look_size, "fps_cap": fps_cap, "start": start, "end": end}
        if isinstance(video, np.ndarray):
            if fps is None or not fps > 0:
                raise InputError("frames as an array have no time stamps; give their rate, such as fps=30")
            yield stream_array(video, fps, recipe=recipe, **asked)
            return
        with contextlib.ExitStack() as stack:
            if isinstance(video, bytes):
                copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".video"))
                copy.write(video)
                copy.flush()
                path = copy.name
            else:
                try:
                    path = stack.enter_context(local_copy(absolute(video)))
                except OSError as error:
                    raise InputError(f"{absolute(video)}: the video cannot be read: {error}") from None
            sandbox = stack.enter_context(self.decoder())
            frames = sandbox.stream(path, recipe=recipe, **asked, limit_seconds=WAIT_SECONDS)
            yield stack.enter_context(contextlib.closing(frames))


def refuse_unusable(classifier: TrainedModel | None, detector: Any) -> None:
    """Raise InputError if there is neither a classifier nor a detector, or the classifier needs a detector."""
    if classifier is None and detector is None:
        raise InputError("give a classifier (--run or --registry), a detector (--detector), or both")
    crop = DecodeRecipe.parse(classifier.run.data.recipe).crop if classifier else ""
    if crop and classifier and detector is None:
        raise InputError(
            f"{classifier.uri}: this run was trained on clips cut around the athlete ({crop}); give the detector that "
            "finds them: --detector RUN"
        )


def _check(start: float, end: float | None, overlap: float, fps_cap: float | None) -> None:
    if not 0.0 <= start < math.inf:
        raise InputError(f"start {start:g}: give a second from 0 on")
    if end is not None and not end > start:
        raise InputError(f"end {end:g}: must be after start, {start:g}")
    if not 0.0 <= overlap <= 0.95:
        raise InputError(f"overlap {overlap:g}: give a share from 0 to 0.95")
    if fps_cap is not None and not fps_cap > 0:
        raise InputError(f"fps_cap {fps_cap:g}: give a rate above 0")
