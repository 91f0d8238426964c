"""The files of an explanation: a PNG sheet for each kind of evidence, explain.html with all of it, explain.json with
its numbers.

Legend: T frames of the clip, H x W the images' pixels; t x h x w positions of a map.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from posture.data.decode.optical_flow import decode
from posture.data.store.files import absolute, join, write_bytes
from posture.display import heatmaps, html, sheets
from posture.display.charts import Chart, ChartLine, Dot, ticks
from posture.display.sheets import Filmstrip
from posture.display.text import THIN_SPACE, percent
from posture.runs.explain import EVEN, Explanation

SHOWN = 6
"""Number of frames in a filmstrip."""


def write(explanation: Explanation, out: str) -> dict[str, bytes]:
    """Write everything into the folder or prefix `out`; return the sheets, {name: PNG}."""
    drawn = draw(explanation)
    for name, content in drawn.items():
        write_bytes(join(out, f"{name}.png"), content)
    write_bytes(join(out, "explain.html"), page(explanation).encode("utf-8", "replace"))
    numbers = summary(explanation) | {"pictures": [f"{name}.png" for name in drawn]}
    write_bytes(join(out, "explain.json"), json.dumps(numbers, indent=1).encode())
    return drawn


def folder_name(explanation: Explanation, start: float | None) -> str:
    """Return `<video>-<start>s-<class>`, without the start if none was given."""
    parts = [
        PurePosixPath(explanation.video).stem,
        *([f"{start:g}s"] if start is not None else []),
        explanation.explained,
    ]
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in "-".join(parts))


def summary(explanation: Explanation) -> dict[str, Any]:
    """Return all numbers as plain values; times are seconds of the video."""
    seconds, found = explanation.window.seconds, explanation.evidence
    return {
        "run": explanation.run.name,
        "checkpoint": explanation.checkpoint,
        "video": explanation.video,
        "frames": _plain(seconds),
        "top": [{"class": name, "probability": probability} for name, probability in explanation.top],
        "probabilities": dict(zip(explanation.classes, explanation.probabilities.tolist(), strict=True)),
        "explained": explanation.explained,
        "grad_cam": [
            {"stream": explanation.run.model.inputs[item.stream], "layer": item.layer, "values": _plain(item.values)}
            for item in found.class_maps
        ],
        "attention": [
            {
                "block": block.name,
                "spatial": _plain(block.spatial),
                "temporal": None if block.temporal is None else _plain(block.temporal),
            }
            for block in found.attention
        ],
        "temporal": {name: _plain(weights) for name, weights in explanation.temporal.items()},
        "key_frames": [
            {"frame": key, "seconds": round(float(seconds[key]), 3), "weight": float(_strong(explanation)[key])}
            for key in explanation.key_frames
        ],
        "device": explanation.device,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def draw(explanation: Explanation) -> dict[str, bytes]:
    """Return PNG sheets of Grad-CAM and, if the network has it, of spatial and of temporal attention."""
    name, share = PurePosixPath(explanation.video).name, explanation.probabilities[explanation.target]
    seen = _seen(explanation)
    drawn = {
        "grad_cam": sheets.filmstrip_sheet(
            f"{name}: evidence for {explanation.explained} ({share:.1%})", [seen, *_class_rows(explanation)]
        )
    }
    if rows := _spatial_rows(explanation):
        drawn["spatial_attention"] = sheets.filmstrip_sheet(f"{name}: spatial attention", [seen, *rows])
    if explanation.temporal:
        bounds = _bounds(explanation)
        drawn["temporal_attention"] = sheets.curve_sheet(
            f"{name}: temporal attention",
            explanation.temporal,
            explanation.window.seconds,
            bounds=(bounds[0], bounds[-1]),
            keys=explanation.key_frames,
            row=_key_row(explanation),
        )
    return drawn


def page(explanation: Explanation) -> str:
    """Return explain.html: one file without scripts and network access."""
    run, seconds = explanation.run, explanation.window.seconds
    strong = _strong(explanation) if explanation.temporal else None
    return html.render(
        "explain.html",
        video=PurePosixPath(explanation.video).name,
        subtitle=[run.name, run.model.kind, f"{seconds[0]:.2f} to {seconds[-1]:.2f}{THIN_SPACE}s"],
        verdict=verdict(explanation),
        top=explanation.top,
        explained=explanation.explained,
        share=float(explanation.probabilities[explanation.target]),
        seen=_seen(explanation),
        class_rows=_class_rows(explanation),
        spatial_rows=_spatial_rows(explanation),
        curve=_curve(explanation) if explanation.temporal else None,
        key_row=_key_row(explanation) if explanation.temporal else None,
        even_in_space=all(np.ptp(block.spatial) < EVEN for block in explanation.evidence.attention),
        even_in_time=explanation.is_level,
        range_in_time=None if strong is None else _range(strong),
        origin=html.origin(absolute(explanation.video), float(seconds[0])),
        facts=[
            ("Video", explanation.video),
            ("Run", run.name),
            ("Checkpoint", explanation.checkpoint),
            ("Decode recipe", run.data.recipe),
            ("Frames", f"{run.model.frames}, at {', '.join(f'{second:.2f}' for second in seconds)}{THIN_SPACE}s"),
            ("Network input", f"{run.model.size} × {run.model.size} pixels: the centre of the frame"),
            ("Device", explanation.device),
        ],
    )


def verdict(explanation: Explanation) -> str:
    """Return the prediction in one or two sentences."""
    (first, share), *others = explanation.top
    sentence = f"The network predicts {first} with {percent(share)}"
    sentence += f"; second is {others[0][0]} with {percent(others[0][1])}." if others else "."
    if explanation.explained != first:
        own = percent(float(explanation.probabilities[explanation.target]))
        sentence += f" Explained here is {explanation.explained}, with {own}."
    return sentence


def _seen(explanation: Explanation) -> Filmstrip:
    window, shown = explanation.window, _shown(explanation)
    side = explanation.run.model.size
    return Filmstrip(
        "Input of the network",
        f"shown larger than {side} × {side} pixels",
        window.images[shown],
        _times(explanation, shown),
    )


def _class_rows(explanation: Explanation) -> list[Filmstrip]:
    """Lay Grad-CAM over frames, finer maps first; maps of a 2-D network side by side, over the one frame it reads."""
    images, rows = explanation.window.images, []
    names = explanation.run.model.inputs
    for stream, name in enumerate(names):
        found = [item for item in reversed(explanation.evidence.class_maps) if item.stream == stream]
        heats = [heatmaps.over_frames(item.values, len(images), images.shape[1:3]) for item in found]
        heats = [heat / (heat.max() or 1.0) for heat in heats]
        positions = [f"{' × '.join(map(str, item.values.shape[item.flat :]))} positions" for item in found]
        silent = "" if any(item.values.any() for item in found) else f", no evidence for {explanation.explained}"
        if found[0].flat:
            middle = len(images) // 2
            original = _flow_image(explanation) if name == "flow" else images[middle]
            beside = [heatmaps.heated(images[[middle]], heat[[middle]])[0] for heat in heats]
            how = "; hue is direction, saturation is speed" if name == "flow" else ""
            note = f"at {_times(explanation, [middle])[0]}; {' and '.join(item.layer for item in found)}{silent}{how}"
            rows.append(Filmstrip(f"Grad-CAM, {name} stream", note, np.stack([original, *beside]), [name, *positions]))
            continue
        shown = _shown(explanation)
        rows += [
            Filmstrip(
                "Grad-CAM",
                f"{item.layer}, {size}{silent}",
                heatmaps.heated(images[shown], heat[shown]),
                _times(explanation, shown),
            )
            for item, size, heat in zip(found, positions, heats, strict=True)
        ]
    return rows


def _flow_image(explanation: Explanation) -> np.ndarray:
    """Colour the flow at the middle of the clip, cropped as for the network: uint8 (H, W, 3), sized as the images."""
    flow, (height, width) = explanation.flow, explanation.window.images.shape[1:3]
    side = min(flow.shape[1:3])
    top, left = ((length - side) // 2 for length in flow.shape[1:3])
    return heatmaps.flow_colours(decode(flow[len(flow) // 2, top : top + side, left : left + side]), (height, width))


def _spatial_rows(explanation: Explanation) -> list[Filmstrip]:
    """Lay each block's spatial attention over frames, coloured from its minimum to its maximum weight."""
    images, shown, rows = explanation.window.images, _shown(explanation), []
    for block in explanation.evidence.attention:
        heat = heatmaps.stretched(heatmaps.over_frames(block.spatial, len(images), images.shape[1:3]))[shown]
        time, height, width = block.spatial.shape
        positions = f"{height} × {width} positions" + (
            f" at each of {time} times" if time > 1 else ", one map for the clip"
        )
        note = (
            f"{'nearly uniform: ' if np.ptp(block.spatial) < EVEN else ''}weights {_range(block.spatial)}; {positions}"
        )
        rows.append(
            Filmstrip(
                f"Attention, {block.name}", note, heatmaps.heated(images[shown], heat), _times(explanation, shown)
            )
        )
    return rows


def _key_row(explanation: Explanation) -> Filmstrip:
    keys, weights = explanation.key_frames, _strong(explanation)
    captions = [f"{explanation.window.seconds[key]:.2f} s, weight {weights[key]:.3f}" for key in keys]
    return Filmstrip("Key frames" if len(keys) > 1 else "Key frame", "", explanation.window.images[keys], captions)


def _curve(explanation: Explanation) -> Chart:
    seconds, strong = explanation.window.seconds.tolist(), _strong(explanation)
    *others, last = explanation.temporal.items()
    looks = ("third", "fourth", "second thin")
    lines = [
        ChartLine(name, list(zip(seconds, weights, strict=True)), looks[index % len(looks)])
        for index, (name, weights) in enumerate(others)
    ]
    lines.append(ChartLine(last[0], list(zip(seconds, last[1], strict=True))))
    dots = [
        Dot(seconds[key], strong[key], 4.5, f"{seconds[key]:.2f} s: {strong[key]:.3f}", f"{seconds[key]:.2f} s")
        for key in explanation.key_frames
    ]
    return Chart(
        "Weight of each frame",
        "seconds",
        "",
        ticks(seconds[0], seconds[-1], 8),
        _bounds(explanation),
        lines,
        dots,
        width=1040,
        height=260,
    )


def _bounds(explanation: Explanation) -> list[float]:
    """Return ticks of the weights, wide enough for a nearly uniform curve to look flat."""
    values = np.concatenate(list(explanation.temporal.values()))
    middle, half = (values.min() + values.max()) / 2, max(np.ptp(values), 2 * EVEN) / 2 * 1.05
    return ticks(max(0.0, middle - half), min(1.0, middle + half))


def _strong(explanation: Explanation) -> np.ndarray:
    """Return the weights (T,) of all blocks together, which define the key frames."""
    return list(explanation.temporal.values())[-1]


def _shown(explanation: Explanation) -> list[int]:
    frames = len(explanation.window.frames)
    return np.linspace(0, frames - 1, min(SHOWN, frames)).round().astype(int).tolist()


def _times(explanation: Explanation, frames: list[int]) -> list[str]:
    return [f"{explanation.window.seconds[frame]:.2f} s" for frame in frames]


def _range(weights: np.ndarray) -> str:
    """Return `0.412 to 0.871`, with more digits if both would read the same."""
    if np.ptp(weights) < 1e-5:
        return f"{weights.mean():.3f} throughout"
    digits = 3 if np.ptp(weights) >= 0.01 else 5
    return f"{weights.min():.{digits}f} to {weights.max():.{digits}f}"


def _plain(values: np.ndarray) -> Any:
    return np.asarray(values, dtype=np.float64).round(6).tolist()
