"""A store as a person would look at it: what training sees, how much there is of each class, and what was refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture.display import html, text
from posture.display.boxed_images import Box, frame_all

Rows = Sequence[Mapping[str, Any]]

SPLITS = ("train", "val", "test")
REFUSED = 200
"""Refused files listed; more are counted."""


def write_show_page(
    path: Path, *, summary: Mapping[str, Any], sheet: Rows, pictures: Mapping[str, Any] | None = None
) -> None:
    """Write one self-contained page about a store to `path`.

    * `summary`: {`uri`, `tables`: [{name, version, rows, bytes, modified}], `classes`: [{class, train, val, test}]
      (segments),
      `splits`: [{split, segments, clips, groups, seconds}], `refused`: [{uri, verdict, reason}], `recipes`: [{recipe,
      clips}], `history`: [{version, time, operation, rows}], with `table` where several tables are listed}; times are
      datetimes or ISO text.
    * `sheet`: clips as training sees them, {`label`, `split`, `group`, `frames`: uint8 (H, W, 3) arrays}, and optional
      `uri` of the video and
      `start` in it (seconds).
    * `pictures`, of a store that has some: {`splits`: [{split, images, empty, boxes, groups}], `classes`: [{class,
      train, val, test}] (boxes),
      `sheet`: [{`pixels`: uint8 (h, w, 3), `boxes`: (B, 4) xyxy in pixels, `labels`: B names, `image`, optional
      `uri`}]}. A store of images alone shows no clips.
    """
    classes, splits, tables, refused = (summary.get(name) or [] for name in ("classes", "splits", "tables", "refused"))
    clips = bool(splits and any(row["segments"] for row in splits)) or not pictures
    balance = _balance(classes)
    totals = {row["class"]: row["total"] for row in balance}
    page = html.render(
        "show.html",
        uri=summary["uri"],
        tiles=[
            *(_clip_tiles(totals.values(), splits) if clips else []),
            *(_image_tiles(pictures) if pictures else []),
            _size_tile(tables, refused),
        ],
        clips=clips,
        pictures=_pictures(pictures) if pictures else None,
        strips=_by_class(sheet, {row["class"]: row["counts"] for row in balance}),
        balance=balance,
        largest=_largest(balance),
        split_names=SPLITS,
        splits=splits,
        tables=tables,
        refused=refused[:REFUSED],
        unlisted=max(0, len(refused) - REFUSED),
        recipes=summary.get("recipes") or [],
        history=summary.get("history") or [],
    )
    html.write(path, page)


def picture(path: Path, sheet: Rows) -> None:
    """Write the contact sheet, items as in `write_show_page`, as one PNG: grouped by class, a filmstrip an item."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    # matplotlib ships DejaVu Sans: the same letters on every machine, beyond Latin.
    typeface = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    heading, note = ImageFont.truetype(typeface, 17), ImageFont.truetype(typeface, 12)
    margin, gap, frame_pixels, most_frames = 28, 2, 96, 6
    strip_width = most_frames * (frame_pixels + gap) - gap
    columns = 2 if len(sheet) > 1 else 1
    width = 2 * margin + columns * strip_width + (columns - 1) * margin

    canvas_items: list[tuple[int, int, Any]] = []  # (x, y, what): laid out first, since the height follows from it
    y = margin
    for name, items in _grouped(sheet).items():
        canvas_items.append((margin, y, (name, heading, "#1b1d20")))
        y += 30
        for start in range(0, len(items), columns):
            tallest = 0
            for column, item in enumerate(items[start : start + columns]):
                x = margin + column * (strip_width + margin)
                frames = [_scaled(frame, frame_pixels) for frame in html.spread(item["frames"], most_frames)]
                canvas_items += [(x + place * (frame_pixels + gap), y, frame) for place, frame in enumerate(frames)]
                height = max((frame.height for frame in frames), default=frame_pixels)
                canvas_items.append((x, y + height + 5, (f"{item['split']} · {item['group']}", note, "#5b6067")))
                tallest = max(tallest, height)
            y += tallest + 32
        y += 12

    canvas = Image.new("RGB", (width, max(y - 12 + margin // 2, 2 * margin)), "#fdfdfb")
    draw = ImageDraw.Draw(canvas)
    for x, top, what in canvas_items:
        if isinstance(what, tuple):
            text, font, colour = what
            draw.text((x, top), _fitted(text, font, strip_width), font=font, fill=colour)
        else:
            canvas.paste(what, (x, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, "PNG", optimize=True)


def _clip_tiles(totals: Collection[int], splits: Rows) -> list[dict[str, str]]:
    return [
        {
            "name": "Segments",
            "value": text.whole(_total(splits, "segments")),
            "note": f"{html.duration(_total(splits, 'seconds'))} of footage",
        },
        {
            "name": "Clips",
            "value": text.whole(_total(splits, "clips")),
            "note": f"from {text.whole(_total(splits, 'groups'))} groups",
        },
        {"name": "Classes", "value": text.whole(len(totals)), "note": _evenness(totals, "segments")},
    ]


def _image_tiles(images: Mapping[str, Any]) -> list[dict[str, str]]:
    splits, totals = images["splits"], [row["total"] for row in _balance(images["classes"])]
    return [
        {
            "name": "Pictures",
            "value": text.whole(_total(splits, "pictures")),
            "note": f"{text.whole(_total(splits, 'empty'))} of them without a box",
        },
        {
            "name": "Boxes",
            "value": text.whole(_total(splits, "boxes")),
            "note": f"from {text.whole(_total(splits, 'groups'))} groups",
        },
        {"name": "Classes of boxes", "value": text.whole(len(totals)), "note": _evenness(totals, "boxes")},
    ]


def _size_tile(tables: Rows, refused: Rows) -> dict[str, str]:
    return {
        "name": "Size",
        "value": html.size(_total(tables, "bytes")),
        "note": f"in {len(tables)} tables, {len(refused):,} files refused",
    }


def _total(rows: Rows, key: str) -> float:
    return sum(row.get(key) or 0 for row in rows)


def _balance(classes: Rows) -> list[dict[str, Any]]:
    """How much there is of each class, in each split and in all."""
    counts = {row["class"]: [(split, row.get(split) or 0) for split in SPLITS] for row in classes}
    return [{"class": name, "counts": each, "total": sum(count for _, count in each)} for name, each in counts.items()]


def _largest(balance: Rows) -> int:
    return max((row["total"] for row in balance), default=0) or 1


def _pictures(images: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of images with boxes."""
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
            "summary": f"{len(item['boxes'])} boxes" if len(item["boxes"]) != 1 else "1 box",
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
    """The sheet's items grouped by class, with what the store holds of each class."""
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
    """Items by label, labels sorted; within one, training footage first."""
    order = {split: place for place, split in enumerate(SPLITS)}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(sheet, key=lambda item: (str(item["label"]), order.get(item["split"], len(order)))):
        groups.setdefault(str(item["label"]), []).append(item)
    return groups


def _scaled(frame: np.ndarray, width_pixels: int) -> Any:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame, dtype=np.uint8))
    return image.resize(
        (width_pixels, max(1, round(image.height * width_pixels / image.width))), Image.Resampling.LANCZOS
    )


def _fitted(text: str, font: Any, width_pixels: int) -> str:
    """The text on one line, shortened with an ellipsis where it is too wide."""
    text = " ".join(text.split())
    while text and font.getlength(text) > width_pixels:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text
