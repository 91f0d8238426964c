"""Join the groups that one video shows: they must be on one side of the splits, because the same frames show them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

OPEN = "train or val"
"""Side of groups that the footage puts into train, and from which val may be drawn."""


class Joined:
    """Groups in units, at first each by itself. `sides` are the splits of the groups that have one, or OPEN."""

    def __init__(self, sides: Mapping[str, str]) -> None:
        self._sides = dict(sides)
        self._units: dict[str, str] = {}

    def unit(self, group: str) -> str:
        """Return the name of the group's unit, which is that of its first group in the order of the alphabet."""
        while (above := self._units.get(group, group)) != group:
            group = above
        return group

    def side(self, group: str) -> str | None:
        """Return the side of the group's unit, or None if it has none yet."""
        return self._sides.get(self.unit(group))

    def join(self, groups: Collection[str]) -> bool:
        """Make one unit of the groups' units. If they are on two sides, return False and leave all as it is."""
        units = sorted({self.unit(group) for group in groups})
        sides = {side for unit in units if (side := self._sides.get(unit))}
        if sides - {OPEN} <= {"train", "val"}:
            sides -= {OPEN} if len(sides) > 1 else set()
        if len(sides) > 1:
            return False
        for unit in units[1:]:
            self._units[unit] = units[0]
        if sides:
            self._sides[units[0]] = sides.pop()
        return True


def fixed_sides(stored: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the side of each group that is `stored`, or that the footage gives a split."""
    named = {group: OPEN if split == "train" else split for group, split in given.items()}
    return named | {group: split for group, split in stored.items() if split}
