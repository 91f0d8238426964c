"""New segments of a store since the last judged challenger, and whether they are enough to train another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from posture.data.ingest.reports import read_refused
from posture.data.store.schema import SPLITS, UNLABELLED
from posture.data.store.tables import Store

Said = dict[str, list[str]]
"""Label, split and group of segments, by id."""


@dataclass(frozen=True)
class Arrivals:
    """The store now, compared with the baseline: the pass that judged a challenger last."""

    before: Said
    now: Said
    clips: Counter[str]
    """Number of clips of each segment, cut by the run's recipe."""
    left_out: dict[str, int]
    """New classes with too few training clips or none held out, and their number of clips."""
    refused: list[dict[str, str]]
    """{uri, verdict, reason} of files refused since the baseline."""
    seen: dict[str, Any]
    """Refusals and ingests up to now, for the next baseline."""

    @property
    def taken(self) -> Said:
        """Segments of the classes that are not left out."""
        return {segment: said for segment, said in self.now.items() if said[0] not in self.left_out}

    @property
    def new(self) -> list[str]:
        """Segments of `taken` that are new, or whose label, split or group changed."""
        return sorted(segment for segment, said in self.taken.items() if self.before.get(segment) != said)

    @property
    def new_clips(self) -> Counter[str]:
        """New training clips by class."""
        counts: Counter[str] = Counter()
        for segment in self.new:
            label, split, _ = self.now[segment]
            counts[label] += self.clips[segment] if split == "train" else 0
        return counts

    def record(self, known: Iterable[str]) -> dict[str, Any]:
        """Return the fields of a decision about what is new; `known` are the champion's classes."""
        groups = {self.now[segment][2]: self.now[segment][1] for segment in self.new}
        old_groups = {said[2] for said in self.before.values()}
        by_split = Counter(split for group, split in groups.items() if group not in old_groups)
        came = {
            "segments": len(self.new),
            "clips": sum(self.clips[segment] for segment in self.new),
            "classes": balance({segment: self.now[segment] for segment in self.new}),
            "new_classes": sorted({said[0] for said in self.taken.values()} - set(known)),
            "groups": {split: by_split[split] for split in SPLITS},
            "relabelled": sum(segment in self.before for segment in self.new),
            "removed": len(set(self.before) - set(self.now)),
        }
        return {
            "came_in": came,
            "balance": {"before": balance(self.before), "after": balance(self.now)},
            "left_out": self.left_out,
            "refused_files": self.refused,
        }


def arrivals(
    store: Store,
    versions: dict[str, int],
    baseline: dict[str, Any] | None,
    *,
    recipe: str | None,
    known: Iterable[str],
    min_per_class: int,
) -> Arrivals:
    """Compare the store at these versions of its tables with the segments.json of a pass (None: with nothing).

    `recipe` is the run's (None: the only one). `known` are the champion's classes; any other class needs
    `min_per_class` training clips and a group that is held out.
    """
    baseline = baseline or {"segments": {}, "refused": [], "ingests": []}
    labelled = (pc.field("split") != "") & (pc.field("label") != UNLABELLED)
    segments = store.read("segments", version=versions.get("segments"), where=labelled).to_pylist()
    now = {row["segment"]: [row["label"], row["split"], row["group"]] for row in segments}
    stored = store.read(
        "clips",
        columns=["segment"],
        version=versions.get("clips"),
        where=None if recipe is None else pc.field("recipe") == recipe,
    )
    clips = Counter(stored["segment"].to_pylist())
    now = {segment: said for segment, said in now.items() if clips[segment]}
    training, held_out = Counter(), Counter()
    for segment, (label, split, _) in now.items():
        training[label] += clips[segment] if split == "train" else 0
        held_out[label] += split == "test"
    left_out = {
        label: training[label]
        for label in sorted(training.keys() - set(known))
        if training[label] < min_per_class or not held_out[label]
    }
    videos = store.read("videos", columns=["uri", "verdict", "reason"], version=versions.get("videos")).to_pylist()
    ingests = store.read("ingests", version=versions.get("ingests")).to_pylist()
    files = [row for row in videos if row["verdict"] != "ok"]
    fresh = [
        item
        for row in ingests
        if row["ingest"] not in baseline["ingests"]
        for item in read_refused(row["report"], store)
    ]
    unique = {(item["uri"], item["verdict"]): item for item in [*files, *fresh]}
    refused = [item for place, item in sorted(unique.items()) if list(place) not in baseline["refused"]]
    seen = {
        "refused": sorted({*map(tuple, baseline["refused"]), *unique}),
        "ingests": [row["ingest"] for row in ingests],
    }
    return Arrivals(baseline["segments"], now, clips, left_out, refused, seen)


def segments_record(found: Arrivals, baseline: str | None) -> dict[str, Any]:
    """Return the segments.json of a pass, the baseline of the next one."""
    return {"segments": found.taken, "new": found.new, "baseline": baseline, **found.seen}


def balance(said: Said) -> dict[str, dict[str, int]]:
    """Count segments by class and split."""
    counts: dict[str, dict[str, int]] = {}
    for label, split, _ in sorted(said.values()):
        counts.setdefault(label, dict.fromkeys(SPLITS, 0))[split] += 1
    return counts
