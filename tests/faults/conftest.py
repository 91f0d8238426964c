"""One site for all of these tests, and the undisturbed way on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.site import TITLES, Command, Place, Result, Site, read_result


@dataclass
class Calm:
    """What an undisturbed way left, and on which nodes each command had workers, by their raylets."""

    place: Place
    result: Result
    raylets: dict[str, set[int]]


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="package")
def calm(site: Site) -> Calm:
    raylets: dict[str, set[int]] = {name: set() for name in TITLES}

    def look(name: str, command: Command) -> bool:
        while command.process.poll() is None:
            raylets[name] |= set(site.nodes.workers(TITLES[name]).values())
            time.sleep(0.1)
        return False

    place = Place(str(site.folder / "calm"), evaluate_workers=2)
    site.whole_way(place, disturb=look)
    return Calm(place, read_result(place), raylets)
