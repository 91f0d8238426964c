"""The page about a store: clips and images as training sees them, class balance, refused files, tables."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from posture.display import html, text
from posture.display.boxed_images import Box, frame_all
from posture.display.text import counted

Rows = Sequence[Mapping[str, Any]]

SPLITS = ("train", "val", "test")
REFUSED = 200
"""Maximum number of refused files listed."""


def write_show_page(
    path: Path, *, summary: Mapping[str, Any], sheet: Rows, images: Mapping[str, Any] | None = None
) -> None:
    """Write one self-contained page about a store to `path`.

    * `summary`: {`uri`, `tables`: [{name, version, rows, bytes, modified}], `classes`: [{class, train, val, test}]
      (segments), `splits`: [{split, segments, clips, groups, seconds}], optionally `athletes`: [{athletes, videos,
      segments}] (videos by their number of labelled athletes) and `on_two_sides` (number of videos), `refused`: [{uri,
      verdict, reason}], `recipes`: [{recipe, clips}], `history`: [{version, time, operation, rows, optionally table}]};
      times are datetimes or ISO text.
    * `sheet`: clips as training sees them, {`label`, `split`, `group`, `frames`: uint8 (H, W, 3) arrays}, optionally
      `uri` of the video and `start` in it (seconds).
    * `images`, if the store has some: {`splits`: [{split, pictures, empty, boxes, groups}], `classes`: [{class, train,
      val, test}] (boxes), `sheet`: [{`pixels`: uint8 (h, w, 3), `boxes`: (B, 4) xyxy in pixels, `labels`: B names,
      `image`: id, optionally `uri`}]}. A page about images only shows no clips.
    """
    classes, splits, tables, refused = (summary.get(name) or [] for name in ("classes", "splits", "tables", "refused"))
    clips = bool(splits and any(row["segments"] for row in splits)) or not images
    balance = _balance(classes)
    totals = {row["class"]: row["total"] for row in balance}
    page = html.render(
        "show.html",
        uri=summary["uri"],
        tiles=[
            *(_clip_tiles(totals.values(), splits) if clips else []),
            *(_image_tiles(images) if images else []),
            (
                "Size",
                html.size(_total(tables, "bytes")),
                f"{counted(len(tables), 'table')}, {counted(len(refused), 'refused file')}",
            ),
        ],
        clips=clips,
        images=_images(images) if images else None,
        strips=_by_class(sheet, {row["class"]: row["counts"] for row in balance}),
        balance=balance,
        largest=_largest(balance),
        split_names=SPLITS,
        splits=splits,
        athletes=summary.get("athletes") or [],
        on_two_sides=on_two_sides(summary.get("on_two_sides") or 0),
        tables=tables,
        refused=refused[:REFUSED],
        unlisted=max(0, len(refused) - REFUSED),
        recipes=summary.get("recipes") or [],
        history=summary.get("history") or [],
    )
    html.write(path, page)


def on_two_sides(videos: int) -> str:
    """Return a warning if this number of videos, over 0, have segments in several splits; else an empty text."""
    return f"{counted(videos, 'video')} with segments in several splits, which show the same frames" if videos else ""


def _clip_tiles(totals: Collection[int], splits: Rows) -> list[tuple[str, str, str]]:
    segments, clips, groups = (text.whole(_total(splits, key)) for key in ("segments", "clips", "groups"))
    return [
        ("Segments", segments, f"{html.duration(_total(splits, 'seconds'))} of footage"),
        ("Clips", clips, f"from {groups} groups"),
        ("Classes", text.whole(len(totals)), _evenness(totals, "segments")),
    ]


def _image_tiles(images: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    splits, totals = images["splits"], [row["total"] for row in _balance(images["classes"])]
    count, empty, boxes, groups = (text.whole(_total(splits, key)) for key in ("pictures", "empty", "boxes", "groups"))
    return [
        ("Images", count, f"{empty} without a box"),
        ("Boxes", boxes, f"from {groups} groups"),
        ("Box classes", text.whole(len(totals)), _evenness(totals, "boxes")),
    ]


def _total(rows: Rows, key: str) -> float:
    return sum(row.get(key) or 0 for row in rows)


def _balance(classes: Rows) -> list[dict[str, Any]]:
    """Return the counts of each class, in each split and in total."""
    counts = {row["class"]: [(split, row.get(split) or 0) for split in SPLITS] for row in classes}
    return [{"class": name, "counts": each, "total": sum(count for _, count in each)} for name, each in counts.items()]


def _largest(balance: Rows) -> int:
    return max((row["total"] for row in balance), default=0) or 1


def _images(images: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the section about images with boxes."""
    balance = _balance(images["classes"])
    sheet = images["sheet"]
    framed = frame_all([
        (
            item["pixels"],
            [
                Box(tuple(map(float, corners)), "labelled", name, name)
                for corners, name in zip(item["boxes"], item["labels"], strict=True)
            ],
        )
        for item in sheet
    ])
    words = [
        {
            "image": item["image"][:12],
            "origin": html.origin(item.get("uri") or ""),
            "reasons": [],
            "summary": counted(len(item["boxes"]), "box", "boxes"),
        }
        for item in sheet
    ]
    return {
        "splits": images["splits"],
        "balance": balance,
        "largest": _largest(balance),
        "shots": [shot | word for shot, word in zip(framed, words, strict=True)],
    }


def _evenness(totals: Collection[int], unit: str) -> str:
    if len(set(totals)) == 1:
        return f"{min(totals):,} {unit} each"
    return f"{min(totals):,} to {max(totals):,} {unit} each" if totals else f"no labelled {unit}"


def _by_class(sheet: Rows, balance: Mapping[str, list[tuple[str, int]]]) -> list[dict[str, Any]]:
    """Group the items of the sheet by class, with the counts of the class."""
    return [
        {
            "class": name,
            "counts": balance.get(name, []),
            "items": [
                dict(
                    item,
                    frames=html.spread(item["frames"], 4),
                    origin=html.origin(item.get("uri") or "", item.get("start")),
                )
                for item in items
            ],
        }
        for name, items in _grouped(sheet).items()
    ]


def _grouped(sheet: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Return items by label, labels sorted; training footage first within a label."""
    order = {split: index for index, split in enumerate(SPLITS)}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(sheet, key=lambda item: (str(item["label"]), order.get(item["split"], len(order)))):
        groups.setdefault(str(item["label"]), []).append(item)
    return groups
