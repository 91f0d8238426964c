"""Teachers of a run: checked and copied into its folder when it begins, so that every worker and a resumed run have
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posture.config import ActionRun, validate
from posture.data.labels.names import first_few
from posture.data.store.files import read_bytes, write_bytes
from posture.display.text import counted
from posture.errors import InputError
from posture.runs.folder import RunFolder
from posture.runs.trained import TrainedModel, open_trained
from posture.runs.weights import load_network

if TYPE_CHECKING:
    from posture.train.teach import Teachers

SAME = ("model.inputs", "model.frames", "model.size", "data.step", "data.flow", "data.mean", "data.std")
"""Fields that decide what a network sees: the teachers' must be the student's."""


def copy_teachers(run: ActionRun, folder: RunFolder, *, classes: tuple[str, ...]) -> str:
    """Copy the best checkpoints of the runs `run.teachers` into the new run's folder; return a sentence on them.

    Raises InputError, and copies nothing, if one is no trained run, sees other clips, or has other classes.
    """
    teachers = [open_trained(uri, task=run.task) for uri in run.teachers]
    for teacher in teachers:
        _refuse_other(teacher, run, classes)
    for number, teacher in enumerate(teachers, start=1):
        write_bytes(folder.path(f"teacher-{number}.safetensors"), teacher.weights)
        described = {"uri": teacher.uri, "run": teacher.run.model_dump(mode="json"), "classes": teacher.classes}
        folder.write_json(f"teacher-{number}.json", described)
    return f"learning from {counted(len(teachers), 'teacher')}: {', '.join(teacher.uri for teacher in teachers)}"


def load_teachers(run: ActionRun, folder: RunFolder, *, classes: tuple[str, ...]) -> Teachers:
    """Return the teachers that `copy_teachers` copied. Raises InputError if one is missing or damaged."""
    from posture.train.teach import Teachers

    networks = []
    for number in range(1, len(run.teachers) + 1):
        file = f"teacher-{number}"
        described, weights = folder.read_json(f"{file}.json"), read_bytes(folder.path(f"{file}.safetensors"))
        if described is None or weights is None:
            raise InputError(f"{folder.path(file)}: a file of this teacher is missing; begin a new run with --teacher")
        teacher = TrainedModel(described["uri"], validate(described["run"]), tuple(described["classes"]), weights)
        with teacher.folder() as checkpoint:
            network = load_network(teacher.run, checkpoint)
        networks.append((network, [teacher.classes.index(name) for name in classes]))
    return Teachers(networks, share=run.loss.teacher_share)


def _refuse_other(teacher: TrainedModel, run: ActionRun, classes: tuple[str, ...]) -> None:
    for path in SAME:
        own, other = _value(run, path), _value(teacher.run, path)
        if own != other:
            raise InputError(
                f"teachers: {teacher.uri} has {path} {other}, and this run {own}; a teacher sees the same clips, so "
                "both need the same value"
            )
    if different := sorted(set(classes) ^ set(teacher.classes)):
        raise InputError(
            f"teachers: {teacher.uri} and the footage have different classes: {first_few(different)} are of one only"
        )


def _value(run: Any, path: str) -> Any:
    section, _, field = path.partition(".")
    return getattr(getattr(run, section), field)
