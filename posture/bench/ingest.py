"""Ingest against plain decord processes, as many as there are cores, that do the same reads and writes and nothing else:
no probing, no hashing, no verdicts, no commits."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from posture.bench import facts, generated, ratio
from posture.data.annotations import AnnotatedVideo, read_footage
from posture.data.cutting import Cut, frame_numbers
from posture.data.rows import CLIPS, DecodeRecipe
from posture.data.store import Store

RECIPE = DecodeRecipe(windows=4)
ROW_GROUP = 8


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """{"what", "measured": {label: values by round}, "ratios", "notes", "clip_bytes": of a stored clip}; Ray is started before the clock."""
    from posture.data.ledger import IngestOptions
    from posture.distributed import cluster
    from posture.distributed.ingest import ingest

    found = read_footage(footage or generated())
    cluster.connect()
    ours, plain, clips, clip_bytes = [], [], 0, 0.0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
            began = time.perf_counter()
            report = ingest(found, store := Store(f"{folder}/store", create=True), IngestOptions(cut=Cut(RECIPE)))
            ours.append(report.clips / (time.perf_counter() - began))
            clips, clip_bytes = report.clips, store.sizes()["clips"][2] / report.clips
        with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
            began = time.perf_counter()
            plain.append(_plain(found.videos, folder) / (time.perf_counter() - began))
    return {"what": f"ingest: {facts(files=len(found.videos), clips=clips, recipe=RECIPE, plain_processes=os.cpu_count())}",
            "measured": {"posture ingest, clips/s": ours, "plain decord processes, clips/s": plain},
            "ratios": {"posture / plain": ratio(ours, plain)}, "notes": [_probe_share(found.videos)], "clip_bytes": clip_bytes}


def _plain(videos: list[AnnotatedVideo], folder: str) -> int:
    """Decode and write with one process per core; returns the number of clips."""
    count = os.cpu_count() or 1
    shares = [([(video.file.uri, [(label.start, label.end) for label in video.labels]) for video in videos[place::count]], f"{folder}/{place}.parquet")
              for place in range(count)]
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
                    buffer.append({"clip": str(written), "segment": uri, "recipe": str(RECIPE), "start": numbers[0] / fps, "frames": len(numbers),
                                   "height": RECIPE.height, "width": RECIPE.width, "offsets": [], "pixels": memoryview(frames).cast("B")})
                    written += 1
                    if len(buffer) == ROW_GROUP:
                        flush()
        if buffer:
            flush()
    return written


def _probe_share(videos: list[AnnotatedVideo]) -> str:
    """What looking at a file costs beside decoding it, on one core."""
    from posture.data.cutting import cut_file
    from posture.data.files import hash_file
    from posture.data.video import probe

    some = videos[:: max(1, len(videos) // 30)]
    began = time.perf_counter()
    for video in some:
        probe(video.file.uri)
        hash_file(video.file.uri)
    probing = time.perf_counter() - began
    began = time.perf_counter()
    for video in some:
        for _ in cut_file(video.file.uri, "", video.labels, Cut(RECIPE)):
            pass
    return f"probing and hashing take {probing / (probing + time.perf_counter() - began):.1%} of the time spent on a file ({len(some)} files, one core)"
