"""A round of questions about unlabelled footage: the chosen stretches, their images, and the answers.

Answers are written to review.csv at once.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip, Cut
from posture.data.decode.sandbox import Sandbox
from posture.data.labels.records import Label
from posture.data.labels.review_csv import REVIEWED, checked_label, write_answer
from posture.data.store.files import join, local_copy
from posture.data.store.schema import DecodeRecipe
from posture.errors import InputError, Unreadable
from posture.retrain.review.active_learning import FileStretch

SHOWN_PIXELS = 480
"""Maximum length of the images' longer side, in pixels."""
SHOWN_RATE = 12.5
"""Approximate number of images per second."""
SHOWN_FRAMES = 150
JPEG_QUALITY = 82
LIMIT_SECONDS = 120.0
HELD = 6
"""Number of clips whose images are kept in memory."""
SUGGESTED = 5


@dataclass
class Question:
    """A stretch, the champion's prediction, and the answer."""

    asked: FileStretch
    probabilities: np.ndarray
    """(K,) float32."""
    state: str = "open"
    """open, labelled, not_usable or skipped."""
    label: str = ""


class Review:
    """The questions of one round; safe to share among threads. `classes` are those of the champion."""

    def __init__(self, root: str, classes: tuple[str, ...], questions: list[Question], *, champion: str) -> None:
        self.root, self.classes, self.questions, self.champion = root, classes, questions, champion
        self._named = list(classes)
        self._writing, self._decoding = threading.Lock(), threading.Lock()
        self._sandbox = Sandbox()
        self._held: OrderedDict[int, bytes] = OrderedDict()

    @property
    def path(self) -> str:
        """The file of answers."""
        return join(self.root, REVIEWED)

    def answer(self, number: int, state: str, label: Any = None) -> None:
        """Set the answer to a question. A label or `not_usable` is written to review.csv; `skipped` and `open` remove
        an answer.

        Raises InputError for an unknown question, state or label.
        """
        question = self._question(number)
        if state not in ("open", "labelled", "not_usable", "skipped"):
            raise InputError(f"{state!r}: an answer is labelled, not_usable, skipped or open")
        label = checked_label(label) if state == "labelled" else ""
        with self._writing:
            if state in ("labelled", "not_usable") or question.state in ("labelled", "not_usable"):
                write_answer(self.root, question.asked.stretch, label if state in ("labelled", "not_usable") else None)
            question.state, question.label = state, label
            if label and label not in self._named:
                self._named.append(label)

    def describe(self) -> dict[str, Any]:
        """Return everything that the page shows except the images."""
        return {
            "path": self.path,
            "champion": self.champion,
            "classes": list(self._named),
            "questions": [self._described(question) for question in self.questions],
        }

    def counts(self) -> dict[str, int]:
        """Count the questions by state."""
        return {
            state: sum(question.state == state for question in self.questions)
            for state in ("labelled", "not_usable", "skipped", "open")
        }

    def images(self, number: int) -> bytes:
        """Return the images of a stretch in order, as JPEG `data:` addresses, and their rate per second, as JSON.

        Raises InputError if the video cannot be decoded.
        """
        question = self._question(number)
        with self._decoding:
            if number not in self._held:
                self._held[number] = self._decode(question.asked)
                while len(self._held) > HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(number)
            return self._held[number]

    def close(self) -> None:
        """End the decoder."""
        self._sandbox.close()

    def _question(self, number: int) -> Question:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.questions):
            raise InputError(f"there is no question {number!r}; they are 0 to {len(self.questions) - 1}")
        return self.questions[number]

    def _described(self, question: Question) -> dict[str, Any]:
        start, end = question.asked.span
        ranked = np.argsort(-question.probabilities, kind="stable")[:SUGGESTED]
        return {
            "video": question.asked.stretch.video,
            "start": start,
            "end": end,
            "whole": question.asked.stretch.end is None and start == 0,
            "state": question.state,
            "label": question.label,
            "suggested": [[self.classes[place], round(float(question.probabilities[place]), 4)] for place in ranked],
        }

    def _decode(self, asked: FileStretch) -> bytes:
        start, end = asked.span
        scale = min(1.0, SHOWN_PIXELS / max(asked.width, asked.height, 1))
        length = max(1, round((end - start) * asked.fps))
        stride = max(1, round(asked.fps / SHOWN_RATE), -(-length // SHOWN_FRAMES))
        recipe = DecodeRecipe(
            max(16, round(scale * asked.height)),
            max(16, round(scale * asked.width)),
            frames=-(-length // stride),
            stride=stride,
            jpeg=JPEG_QUALITY,
        )
        try:
            with local_copy(asked.uri) as path:
                messages = list(
                    self._sandbox.cut(
                        path, "", [Label(start, end, "", "", "")], Cut(recipe), limit_seconds=LIMIT_SECONDS
                    )
                )
            clip = next(item for item in messages if isinstance(item, Clip))
        except (Unreadable, OSError, StopIteration) as error:
            raise InputError(f"{asked.stretch.video} cannot be decoded: {error}") from None
        pixels, offsets = bytes(clip.pixels), clip.row["offsets"]
        images = [pixels[begin:end] for begin, end in zip(offsets, [*offsets[1:], len(pixels)], strict=True)]
        frames = ["data:image/jpeg;base64," + base64.b64encode(image).decode() for image in images]
        return json.dumps({"rate": asked.fps / stride, "frames": frames}).encode()
