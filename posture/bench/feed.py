"""Batches from the store beside two torch DataLoaders: one decodes the same clips with decord, one reads the table.

All give micro batches of uint8 clips (n, T, H, W, 3), cut to the network's frames.
"""

from __future__ import annotations

import functools
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from posture.bench import facts, generated, ratio
from posture.config import ActionRun, override
from posture.data.decode.cut import Cut
from posture.data.feed.clips import ClipIndex, Clips, index_footage
from posture.data.feed.shards import open_index
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.recipes import load_recipe

RECIPE = DecodeRecipe(windows=2)
BATCH = 16
EPOCHS = 8


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """{"what", "measured", "ratios", "notes"}. One reading process each besides the worker's own."""
    import ray

    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.distributed import cluster
    from posture.distributed.feed import feed
    from posture.distributed.ingest import ingest

    with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
        found = read_footage(footage or generated())
        store = Store(f"{folder}/store", create=True)
        cluster.connect()
        ingest(found, store, IngestOptions(cut=Cut(RECIPE)))
        index = index_footage(store, "train")
        if len(index) < BATCH:
            raise InputError(
                f"{found.root}: posture bench feed reads batches of {BATCH} training clips; these are {len(index)}"
            )
        run = override(load_recipe("jobs/action.py:improved"), {"scale.global_batch": BATCH, "epochs": EPOCHS})
        assert isinstance(run, ActionRun)
        spans = _spans(store, index)
        measured: dict[str, list[float]] = {
            "posture, from memory": [],
            "posture, streamed": [],
            "DataLoader, same table in memory": [],
            "DataLoader, same table, 1 process": [],
            "DataLoader decoding with decord, 1 process": [],
        }
        first: dict[str, list[float]] = {"posture, from memory": [], "posture, streamed": []}
        notes: list[str] = []
        consumer = cast("Any", ray.remote(num_cpus=1)(_Consumer))  # ray types it as the class itself
        for _ in range(rounds):
            for label, mode in (("posture, from memory", "materialize"), ("posture, streamed", "stream")):
                worker = consumer.remote(run)
                ray.get(worker.__ray_ready__.remote())
                began = time.perf_counter()
                (item,) = feed([index], mode=mode)
                ray.get(worker.first.remote(item))
                first[label].append(time.perf_counter() - began)
                rates, memory = ray.get(worker.epochs.remote(EPOCHS))
                measured[label].append(float(np.median(rates)))
                notes.append(
                    f"{label}: worker memory after each of {EPOCHS} epochs "
                    f"{', '.join(f'{mib:.0f}' for mib in memory)} MiB"
                )
                ray.kill(worker)
            measured["DataLoader, same table in memory"].append(_drain(_StoredClips(index, run), processes=0))
            measured["DataLoader, same table, 1 process"].append(_drain(_StoredClips(index, run), processes=1))
            measured["DataLoader decoding with decord, 1 process"].append(_decord_loader(spans, index, run))
    best_table = [
        max(pair)
        for pair in zip(
            measured["DataLoader, same table in memory"], measured["DataLoader, same table, 1 process"], strict=True
        )
    ]
    return {
        "what": f"feed, clips/s: {facts(clips=len(index), recipe=RECIPE, batch=BATCH, frames=run.model.frames)}",
        "measured": measured,
        "ratios": {
            "posture / DataLoader decoding": ratio(
                measured["posture, from memory"], measured["DataLoader decoding with decord, 1 process"]
            ),
            "posture / DataLoader on the table (its better one)": ratio(measured["posture, from memory"], best_table),
            "streamed / DataLoader decoding": ratio(
                measured["posture, streamed"], measured["DataLoader decoding with decord, 1 process"]
            ),
        },
        "notes": [
            *(
                f"{label}: first batch {', '.join(f'{seconds:.1f}' for seconds in values)} s after a waiting worker "
                "asked for the footage"
                for label, values in first.items()
            ),
            *notes,
        ],
    }


class _Consumer:
    """A training worker without its network."""

    def __init__(self, run: ActionRun) -> None:
        from posture.train import clip_batches

        self._run, self._module = run, clip_batches

    def first(self, item: Any) -> None:
        """Open the footage and take one batch."""
        footage = item.open()
        self._batches = self._module.ClipBatches(footage, self._run, rank=0, world_size=1, validation=footage)
        steps = self._batches.training(0)
        next(steps)
        steps.close()

    def epochs(self, count: int) -> tuple[list[float], list[float]]:
        """Clips/s and resident MiB of each epoch."""
        rates, memory = [], []
        for epoch in range(count):
            began, clips = time.perf_counter(), 0
            for step in self._batches.training(epoch):
                clips += sum(len(batch.labels) for batch in step)
            rates.append(clips / (time.perf_counter() - began))
            memory.append(resident_mib())
        return rates, memory


def resident_mib() -> float:
    """Memory of this process, without pages it shares with the object store where the system tells them apart."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return (int(fields["RssAnon"].split()[0])) / 1024
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _spans(store: Store, index: ClipIndex) -> list[tuple[str, list[int]]]:
    """(file, frame numbers of the stored window) of every clip, for the loader that decodes."""
    clips = {
        row["clip"]: row for row in store.read("clips", columns=["clip", "segment", "start", "frames"]).to_pylist()
    }
    segments = {row["segment"]: row["video"] for row in store.read("segments").to_pylist()}
    videos = {row["video"]: row for row in store.read("videos").to_pylist()}
    spans = []
    for key in index.keys:
        row = clips[key]
        video = videos[segments[row["segment"]]]
        first = round(row["start"] * video["fps"])
        spans.append((video["uri"], [first + RECIPE.stride * number for number in range(row["frames"])]))
    return spans


def _decord_loader(spans: list[tuple[str, list[int]]], index: ClipIndex, run: ActionRun) -> float:
    """Clips/s of a map-style dataset that decodes the 16 frames it needs."""
    some = spans[:: max(1, len(spans) // 160)]
    return _drain(_DecodedClips(some, run), 1)


class _StoredClips:
    """The clips of the table, which the loader's process reads into memory before its first batch, so untimed: open
    clips cannot be sent to another process.
    """

    def __init__(self, index: ClipIndex, run: ActionRun) -> None:
        self.index, self.frames = index, run.model.frames

    @functools.cached_property
    def clips(self) -> Clips:
        return open_index(self.index, feed="materialize")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> np.ndarray:
        stored = self.clips.clip(index)
        start = np.random.randint(max(1, len(stored) - self.frames + 1))
        return np.ascontiguousarray(stored[np.minimum(np.arange(start, start + self.frames), len(stored) - 1)])


class _DecodedClips:
    def __init__(self, spans: list[tuple[str, list[int]]], run: ActionRun) -> None:
        self.spans, self.frames = spans, run.model.frames

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> np.ndarray:
        import decord

        uri, numbers = self.spans[index]
        start = np.random.randint(max(1, len(numbers) - self.frames + 1))
        picked = [numbers[min(place, len(numbers) - 1)] for place in range(start, start + self.frames)]
        reader = decord.VideoReader(uri, width=RECIPE.width, height=RECIPE.height, num_threads=1)
        return reader.get_batch([min(number, len(reader) - 1) for number in picked]).asnumpy()


def _drain(dataset: Any, processes: int) -> float:
    """Clips/s over an epoch, counted from its second batch: starting processes is not reading."""
    from torch.utils.data import DataLoader

    context = {"multiprocessing_context": "forkserver", "prefetch_factor": 2} if processes else {}
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=processes, **context)
    batches: Iterator[Any] = iter(loader)
    next(batches)
    began, clips = time.perf_counter(), 0
    for batch in batches:
        clips += len(batch)
    return clips / (time.perf_counter() - began)
