"""Changes to a recipe, an option that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from posture.config import parse_assignments
from posture.errors import InputError

Sets = Annotated[Sequence[str], Parameter(name="--set", metavar="FIELD=VALUE", consume_multiple=False)]


def read_sets(sets: Sequence[str], **options: Any) -> dict[str, Any]:
    """Return the changes to a recipe that `--set` and options such as `--epochs` ask for, by the field's path.

    Raises InputError if both name one field.
    """
    changes = parse_assignments(sets)
    for option, value in options.items():
        path = {"workers": "scale.workers", "teacher": "teachers"}.get(option, option)
        if value is not None and path in changes:
            raise InputError(f"--{option} and --set {path}=... name the same field; give one of them")
        changes |= {path: value} if value is not None else {}
    return changes
