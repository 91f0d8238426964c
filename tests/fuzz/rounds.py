"""Rounds of broken files beside good ones. A round ends with one sentence at worst; what is kept is stored as if the
rest had not been there.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.labels import images
from posture.data.labels.layouts import choose_layout
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed.ingest import ingest_images
from posture.errors import InputError
from tests.fuzz.mutations import mutate, mutate_text
from tests.fuzz.sources import (
    IMAGE_SUFFIXES,
    KINDS,
    LAYOUTS,
    SUFFIXES,
    add_image,
    encode_image,
    encode_video,
    labels_of,
    write_good_images,
)

CUT = Cut(DecodeRecipe(24, 32, 8, 1, 1), 4)
HANG_SECONDS = 300
"""Nothing here takes a tenth of it on a busy machine."""
BATCH = 50
"""Broken files that lie beside good ones in a round."""


@dataclass
class Outcome:
    """What a round came to."""

    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What must not be, each with what it takes to see it again."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.verdicts + other.verdicts, self.wrong + other.wrong)


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"it hangs: not done in {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def take(root: Path, store: Path) -> list[dict[str, str]]:
    """What `posture ingest ROOT --store STORE` does, videos in this process; its refusals. Raises InputError."""
    with no_hang():
        layout = choose_layout(str(root), clips=False)
        if layout in images.LAYOUTS:
            found = images.read_images(str(root), layout=layout)
            report = ingest_images(
                found, Store(str(store), create=True), ImageOptions(max_refused_share=1.0, file_limit_seconds=60)
            )
        else:
            options = IngestOptions(cut=CUT, max_refused_share=1.0, file_limit_seconds=60)
            report = ingest_clips(read_footage(str(root), layout=layout), Store(str(store), create=True), options)
    return report.refused


def attempt(what: str, outcome: Outcome, root: Path, store: Path) -> list[dict[str, str]] | None:
    """`take`, with everything noted that must not be; None if it ended in a sentence."""
    before = _around(root)
    refused = None
    try:
        refused = take(root, store)
        outcome.verdicts.update(item["verdict"] for item in refused)
        strange = [
            item
            for item in refused
            if item["verdict"] not in schema.VERDICTS or item["verdict"] == "failed" or "\n" in item["reason"]
        ]
        outcome.wrong += [f"{what}: {item}" for item in strange]
    except InputError as error:
        outcome.verdicts["a sentence"] += 1
        if "\n" in str(error) or not str(error):
            outcome.wrong.append(f"{what}: no single sentence: {str(error)[:300]!r}")
    except Exception:
        outcome.verdicts["a traceback"] += 1
        outcome.wrong.append(f"{what}: {traceback.format_exc()[-1500:]}")
    if _around(root) != before:
        outcome.wrong.append(f"{what}: something outside of the store changed")
    return refused


def play_videos(folder: Path, *, seed: int, number: int, count: int = BATCH) -> Outcome:
    """Broken videos beside six good ones, in two classes."""
    chance, outcome, what = random.Random(f"videos {seed} {number}"), Outcome(), f"videos, seed {seed}, round {number}"
    folder.mkdir(parents=True)
    sources = [
        (kind[0], encode_video(folder / "made", kind, seed=chance.randrange(10**6))) for kind in chance.sample(KINDS, 6)
    ]
    mixed = folder / "mixed"
    for name in ("left", "right"):
        (mixed / name).mkdir(parents=True)
    for place, (suffix, content) in enumerate(sources):
        (mixed / ("left", "right")[place % 2] / f"good{place}.{suffix}").write_bytes(content)
    for place in range(count):
        (suffix, content), (_, other) = chance.choice(sources), chance.choice(sources)
        suffix = chance.choice(SUFFIXES) if chance.random() < 0.15 else suffix
        (mixed / chance.choice(("left", "right")) / f"{chance.randrange(1000)}-{place}.{suffix}").write_bytes(
            _broken(chance, content, other)
        )
    refused = attempt(what, outcome, mixed, folder / "store")
    if refused is None:
        outcome.wrong.append(f"{what}: good videos were not taken in")
        return outcome
    gone = {item["uri"] for item in refused} & {
        row["uri"] for row in Store(str(folder / "store")).read("videos").to_pylist() if row["verdict"] != "ok"
    }
    outcome.verdicts["ok"] += count + len(sources) - len(gone)
    if lost := [uri for uri in gone if "/good" in uri]:
        outcome.wrong.append(f"{what}: good videos were refused: {lost}")
    _compare(what, outcome, folder, gone, {"groups": [], "segments": [], "clips": []})
    return outcome


def play_images(folder: Path, *, seed: int, number: int, count: int = BATCH) -> Outcome:
    """Broken images beside twelve good ones. Needs Ray."""
    chance, outcome, what = (
        random.Random(f"images {seed} {number}"),
        Outcome(),
        f"images, seed {seed}, round {number}",
    )
    mixed = folder / "mixed"
    write_good_images(mixed, 12)
    sources = [(suffix, encode_image(suffix, seed=chance.randrange(10**6))) for suffix in IMAGE_SUFFIXES]
    for place in range(count):
        (suffix, content), (_, other) = chance.choice(sources), chance.choice(sources)
        suffix = chance.choice(IMAGE_SUFFIXES[:4]) if suffix == ".tif" or chance.random() < 0.15 else suffix
        add_image(mixed, f"{chance.randrange(1000)}-{place}{suffix}", _broken(chance, content, other))
    refused = attempt(what, outcome, mixed, folder / "store")
    if refused is None:
        outcome.wrong.append(f"{what}: good images were not taken in")
        return outcome
    gone = {
        row["uri"] for row in Store(str(folder / "store")).read("pictures").to_pylist() if row["verdict"] != "ok"
    } | {item["uri"] for item in refused}
    outcome.verdicts["ok"] += count + 12 - len(gone)
    if lost := [uri for uri in gone if "/good" in uri]:
        outcome.wrong.append(f"{what}: good images were refused: {lost}")
    _compare(what, outcome, folder, gone, {"groups": [], "boxes": [], "images": ["uri"]})
    return outcome


def play_labels(folder: Path, *, seed: int, number: int, layout: str | None = None) -> Outcome:
    """One broken file of labels over a store that stands. Ended in a sentence, nothing has changed; mended, the store
    is as before.
    """
    chance, outcome = random.Random(f"labels {seed} {number}"), Outcome()
    layout = layout or sorted(LAYOUTS)[number % len(LAYOUTS)]
    whole = folder.parent / f"whole-{layout}"
    if not (whole / "store").exists():
        LAYOUTS[layout](whole / "footage")
        take(whole / "footage", whole / "store")
    footage = Path(shutil.copytree(whole / "footage", folder / "footage"))
    store = Path(shutil.copytree(whole / "store", folder / "store"))
    table = chance.choice(labels_of(footage))
    what = f"labels, seed {seed}, round {number}: {layout}, {table.relative_to(footage)}"
    good = table.read_bytes()
    table.write_bytes(mutate_text(chance, good))
    before = _stored(store)
    if attempt(what, outcome, footage, store) is None and _stored(store) != before:
        outcome.wrong.append(f"{what}: it ended in a sentence, and the store has changed")
    table.write_bytes(good)
    if attempt(f"{what}, mended", outcome, footage, store) is None:
        if not _changed_sides(whole / "store", store):
            outcome.wrong.append(f"{what}: mended labels are refused")
    elif (after := _labels(store)) != _labels(whole / "store") and not _changed_sides(whole / "store", store):
        outcome.wrong.append(f"{what}: mended, the store is another: {_difference(_labels(whole / 'store'), after)}")
    return outcome


PLAY: dict[str, Callable[..., Outcome]] = {"videos": play_videos, "images": play_images}


def _broken(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A mutation that is neither of the two: a copy could take a good file's place."""
    while (made := mutate(chance, content, other)) in (content, other):
        pass
    return made


def _compare(what: str, outcome: Outcome, folder: Path, gone: set[str], tables: dict[str, list[str]]) -> None:
    """The same folder without the files that are `gone`, into another store: it must hold the same; `tables` say which
    columns name the folder.
    """
    kept = Path(
        shutil.copytree(
            folder / "mixed",
            folder / "kept",
            ignore=lambda at, names: [name for name in names if f"{at}/{name}" in gone],
        )
    )
    if attempt(f"{what}, without the bad", outcome, kept, folder / "other") is None:
        outcome.wrong.append(f"{what}: what was kept of it is not taken in alone")
        return
    for table, dropped in tables.items():
        one, other = (_rows(folder / name, table, dropped) for name in ("store", "other"))
        if one != other:
            outcome.wrong.append(f"{what}: {table} differ without the bad files: {_difference(one, other)}")


def _rows(store: Path, table: str, dropped: list[str]) -> list[str]:
    return sorted(
        str({name: value for name, value in row.items() if name not in dropped})
        for row in Store(str(store)).read(table).to_pylist()
    )


def _difference(one: list[str], other: list[str]) -> str:
    return " | ".join(row[:200] for row in sorted(set(one) ^ set(other))[:4])


def _stored(store: Path) -> dict[str, Any]:
    return {name: _rows(store, name, []) for name in ("groups", "segments", "boxes")}


def _labels(store: Path) -> list[str]:
    """What is labelled, and on which side."""
    return _rows(store, "segments", []) + _rows(store, "boxes", [])


def _changed_sides(whole: Path, store: Path) -> bool:
    """Whether a group came into the store while its labels were broken: it keeps its side, also if that is another than
    the whole labels name.
    """
    return _rows(whole, "groups", []) != _rows(store, "groups", [])


def _around(root: Path) -> str:
    """A digest of the footage, and of everything beside it but stores."""
    digest = hashlib.blake2b()
    for path in sorted(root.parent.rglob("*")):
        place = path.relative_to(root.parent)
        if place.parts[0] not in ("store", "other") and path.is_file():
            digest.update(f"{place} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()
