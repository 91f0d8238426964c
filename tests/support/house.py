"""Count rooms, floors and circles of the package: `python -m tests.support.house [CHECKOUT]`.

A room is a folder at the top of the package, a folder in `data/`, or a module at the top. A room imports another if
any of its files does, inside functions too. Rooms that import each other, directly or in a ring, are a circle. The
floor of a room is the longest chain of imports below it.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

FLOORS = (
    ("errors", "display"),
    ("data/store",),
    ("data/labels",),
    ("data/decode",),
    ("data/feed",),
    ("data/ingest", "data/synthetic"),
    ("models",),
    ("config", "tasks"),
    ("train",),
    ("runs",),
    ("compare", "search", "predict"),
    ("retrain", "distributed"),
    ("bench",),
    ("commands",),
    ("__main__",),
)
"""The folders and top modules of the package, from the ground up. A file imports from its own folder and from lower
floors only.
"""


@functools.cache
def imported(path: Path, *, at_top: bool = False) -> tuple[str, ...]:
    """Return the dotted names that a file imports, those inside functions too unless `at_top`."""
    tree, names = ast.parse(path.read_text()), list[str]()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def files_of(package: Path) -> dict[str, set[str]]:
    """Return each module of the package with the modules that it imports when it is loaded, by dotted name."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    return {
        name: {found for found in map(_known(files), imported(path, at_top=True)) if found} - {name}
        for name, path in files.items()
    }


def rooms_of(package: Path) -> dict[str, set[str]]:
    """Return each room of the package with the rooms that it imports."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    rooms: dict[str, set[str]] = {room_of(path, package): set() for path in files.values()}
    for path in files.values():
        room = room_of(path, package)
        rooms[room] |= {room_of(files[found], package) for found in map(_known(files), imported(path)) if found} - {
            room
        }
    return rooms


def module_name(path: Path, package: Path) -> str:
    """`posture/data/store/tables.py` -> `posture.data.store.tables`."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _known(files: dict[str, Path]) -> Callable[[str], str | None]:
    """Return a function from an imported name to its module: `posture.config.Run` -> `posture.config`."""
    return lambda name: next((one for one in (name, name.rpartition(".")[0]) if one in files), None)


def room_of(path: Path, package: Path) -> str:
    """Return `data/store` for a file there, `runs` for one in `runs/reports`, `config` for a module at the top."""
    *folders, _ = path.relative_to(package).parts
    return "/".join(folders[: 2 if folders[0] == "data" else 1]) if folders else path.stem


def circles(rooms: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of rooms that reach each other, the largest first."""
    reach = {room: _reach(room, rooms) for room in rooms}
    found = {frozenset(other for other in reach[room] if room in reach[other]) | {room} for room in rooms}
    return sorted((set(ring) for ring in found if len(ring) > 1), key=len, reverse=True)


def floors(rooms: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room; the rooms of a circle count as one."""
    rings = circles(rooms)
    name = {room: "+".join(sorted(next((ring for ring in rings if room in ring), {room}))) for room in rooms}
    graph = {
        one: {name[other] for room in rooms if name[room] == one for other in rooms[room]} - {one}
        for one in name.values()
    }
    height: dict[str, int] = {}
    for one in TopologicalSorter(graph).static_order():
        height[one] = 1 + max((height[below] for below in graph[one]), default=0)
    return {room: height[name[room]] for room in rooms}


def _reach(room: str, rooms: dict[str, set[str]]) -> set[str]:
    reached, waiting = set(), [room]
    while waiting:
        new = rooms[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


def main(checkout: str = ".") -> None:
    """Print the counts, then each floor with its rooms."""
    rooms = rooms_of(Path(checkout).resolve() / "posture")
    height, rings = floors(rooms), circles(rooms)
    arrows = sum(map(len, rooms.values()))
    print(f"{len(rooms)} rooms, {max(height.values())} floors, {arrows} arrows, {len(rings)} circles")
    for ring in rings:
        print(f"circle: {', '.join(sorted(ring))}")
    for floor in range(max(height.values()), 0, -1):
        print(f"{floor:2}  {', '.join(sorted(room for room, own in height.items() if own == floor))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
