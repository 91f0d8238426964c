"""Ingest against plain decord processes, as many as there are cores, that do the same reads and writes and nothing
else: no probing, no hashing, no verdicts, no commits. And decoding alone, ours against decord's, whose random access is
not exact for every file.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from posture.bench import facts, generated, ratio
from posture.data.decode.cut import Cut, frame_numbers
from posture.data.labels.records import AnnotatedVideo
from posture.data.labels.videos import read_footage
from posture.data.store.schema import CLIPS, DecodeRecipe
from posture.data.store.tables import Store

RECIPE = DecodeRecipe(windows=4)
ROW_GROUP = 8


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """{"what", "measured": {label: values by round}, "ratios", "notes", "cost": see cpu_time}; Ray is started before
    the clock.
    """
    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.distributed import cluster
    from posture.distributed.ingest import ingest

    found = read_footage(footage or generated())
    cluster.connect()
    ours, plain, clips = [], [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
            began = time.perf_counter()
            report = ingest(found, Store(f"{folder}/store", create=True), IngestOptions(cut=Cut(RECIPE)))
            ours.append(report.clips / (time.perf_counter() - began))
            clips = report.clips
        with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
            began = time.perf_counter()
            plain.append(_plain(found.videos, folder) / (time.perf_counter() - began))
    cost = cpu_time(found.videos)
    exact, decord = decoding(found.videos, rounds=rounds)
    return {
        "what": f"ingest: {facts(files=len(found.videos), clips=clips, recipe=RECIPE, plain_processes=os.cpu_count())}",
        "measured": {
            "posture ingest, clips/s": ours,
            "plain decord processes, clips/s": plain,
            "frame-exact reader, clips per CPU second": exact,
            "decord, clips per CPU second": decord,
        },
        "ratios": {"posture / plain": ratio(ours, plain), "reader / decord": ratio(exact, decord)},
        "notes": [cost_note(cost)],
        "cost": cost,
    }


def _plain(videos: list[AnnotatedVideo], folder: str) -> int:
    """Decode and write with one process per core; returns the number of clips."""
    count = os.cpu_count() or 1
    shares = [
        (
            [(video.file.uri, [(label.start, label.end) for label in video.labels]) for video in videos[place::count]],
            f"{folder}/{place}.parquet",
        )
        for place in range(count)
    ]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return sum(pool.starmap(_decode_share, shares))


def _decode_share(videos: list[tuple[str, list[tuple[float, float | None]]]], path: str) -> int:
    import decord
    import pyarrow as pa
    import pyarrow.parquet as pq

    written, buffer = 0, []
    with pq.ParquetWriter(path, CLIPS, compression="zstd", compression_level=1, use_dictionary=False) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(buffer, schema=CLIPS))
            buffer.clear()

        for uri, spans in videos:
            Path(uri).read_bytes()
            reader = decord.VideoReader(uri, width=RECIPE.width, height=RECIPE.height, num_threads=1)
            fps = reader.get_avg_fps()
            for start, end in spans:
                first, last = round(start * fps), len(reader) if end is None else min(len(reader), round(end * fps))
                for numbers in frame_numbers(first, last, RECIPE):
                    frames = reader.get_batch(numbers).asnumpy()
                    buffer.append({
                        "clip": str(written),
                        "segment": uri,
                        "recipe": str(RECIPE),
                        "start": numbers[0] / fps,
                        "frames": len(numbers),
                        "height": RECIPE.height,
                        "width": RECIPE.width,
                        "offsets": [],
                        "pixels": memoryview(frames).cast("B"),
                    })
                    written += 1
                    if len(buffer) == ROW_GROUP:
                        flush()
        if buffer:
            flush()
    return written


def decoding(videos: list[AnnotatedVideo], *, rounds: int) -> tuple[list[float], list[float]]:
    """Clips per CPU second of some of the files by round, by our reader and by decord, in this process and in turn: the
    same frames of the same size.
    """
    some = videos[:: max(1, len(videos) // 30)]
    for warm_up in (_reader_clips, _decord_clips):  # whoever begins pays for loading
        warm_up(some)
    rates: tuple[list[float], list[float]] = [], []
    for number in range(rounds):
        for decode, found in ((_reader_clips, rates[0]), (_decord_clips, rates[1]))[:: 1 if number % 2 else -1]:
            began = time.process_time()
            clips = decode(some)
            found.append(clips / (time.process_time() - began))
    return rates


def _reader_clips(videos: list[AnnotatedVideo]) -> int:
    from posture.data.decode.video import open_video

    clips = 0
    for video in videos:
        with open_video(video.file.uri, height=RECIPE.height, width=RECIPE.width) as reader:
            clips += sum(reader.frames(numbers) is not None for numbers in _windows(video, len(reader), reader.fps))
    return clips


def _decord_clips(videos: list[AnnotatedVideo]) -> int:
    import torch  # noqa: F401, I001  before decord, which crashes otherwise
    import decord

    clips = 0
    for video in videos:
        reader = decord.VideoReader(video.file.uri, width=RECIPE.width, height=RECIPE.height, num_threads=1)
        clips += sum(
            reader.get_batch(numbers).asnumpy() is not None
            for numbers in _windows(video, len(reader), reader.get_avg_fps())
        )
    return clips


def _windows(video: AnnotatedVideo, frames: int, fps: float) -> list[list[int]]:
    """The frames of every window of the video's labels."""
    spans = [
        (round(label.start * fps), frames if label.end is None else min(frames, round(label.end * fps)))
        for label in video.labels
    ]
    return [numbers for first, last in spans for numbers in frame_numbers(first, last, RECIPE)]


def cpu_time(videos: list[AnnotatedVideo]) -> dict[str, Any]:
    """Measure the work of a task on a file, and of reading its clips from the store, on some files in this process.

    It is CPU time, which other work on the machine hardly lengthens. Returns {"files", "probe_share", "per_cpu_second":
    clips {"taken_in", "read"}, "clip_bytes": of a stored clip}.
    """
    from posture.data.decode.cut import Clip
    from posture.data.decode.decode_file import cut_file
    from posture.data.decode.video import probe
    from posture.data.feed.shards import Shard, read_shard
    from posture.data.ingest.parquet_part import ParquetPart
    from posture.data.store.files import hash_file

    some = videos[:: max(1, len(videos) // 30)]
    with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
        store = Store(f"{folder}/store", create=True)
        store.create_tables()
        part = ParquetPart(store.uri, "clips", compress=True)
        clock = [time.process_time()]
        for video in some:
            probe(video.file.uri)
            hash_file(video.file.uri)
        clock.append(time.process_time())
        for video in some:
            part.begin()
            for message in cut_file(video.file.uri, video.file.uri, video.labels, Cut(RECIPE)):
                if isinstance(message, Clip):
                    part.write(message.row | {"pixels": message.pixels})
        made = part.close()
        assert made, "labelled videos have clips"
        clock.append(time.process_time())
        rows = np.arange(made["rows"])
        for _ in range(2):  # the first pays for what a process that goes on reading has
            read_shard(store.uri, Shard(made["path"], rows, rows))
            clock.append(time.process_time())
    probing, cutting, _, reading = np.diff(clock).tolist()
    return {
        "files": len(some),
        "probe_share": probing / (probing + cutting),
        "clip_bytes": made["bytes"] / made["rows"],
        "per_cpu_second": {"taken_in": made["rows"] / (probing + cutting), "read": made["rows"] / reading},
    }


def cost_note(cost: dict[str, Any]) -> str:
    rates = cost["per_cpu_second"]
    return (
        f"a second of one CPU takes in {rates['taken_in']:.1f} clips, {cost['probe_share']:.1%} of it spent on probing "
        "and hashing, or reads "
        f"{rates['read']:.0f} from the store, of {cost['clip_bytes'] / 1e6:.2f} MB each ({cost['files']} files, in one "
        "process)"
    )
