"""Heat over frames: the few positions of a network's map, interpolated over the images that the network saw.

Legend: T frames, H x W their pixels; t x h x w the positions of a map. Frames are uint8 RGB (T, H, W, 3).
"""

from __future__ import annotations

import numpy as np

HEAT = "inferno"
"""matplotlib's colour map: perceptually uniform, also in grey and for colour-blind readers."""
COLDEST = 0.3
"""Start of heat on that scale: darker colours would read as shadow."""
DIM, COVER = 0.55, 0.75
"""Brightness of a cold position, and opacity of the colour over a hot one."""


def over_frames(values: np.ndarray, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Interpolate a map (t, h, w) to every frame and pixel: (T, H, W) float32, linear in time and smooth in space.

    The result stays within the range of the map.
    """
    import cv2

    values = np.asarray(values, dtype=np.float32)
    spread = np.stack([over_time(column, frames) for column in values.reshape(len(values), -1).T], axis=1)  # (T, h * w)
    small = spread.reshape(frames, *values.shape[1:]).astype(np.float32)
    # in parts of a position: just enough to hide the edges
    softness = 0.3 * size[0] / values.shape[1], 0.3 * size[1] / values.shape[2]
    large = [cv2.resize(item, size[::-1], interpolation=cv2.INTER_LINEAR) for item in small]
    return np.stack([
        cv2.GaussianBlur(item, (0, 0), sigmaX=softness[1], sigmaY=softness[0], borderType=cv2.BORDER_REPLICATE)
        for item in large
    ])


def over_time(weights: np.ndarray, frames: int) -> np.ndarray:
    """Interpolate weights (t,) linearly to every frame: (T,) float64. Each is at the middle of its frames."""
    centres = (np.arange(len(weights)) + 0.5) * frames / len(weights) - 0.5
    return np.interp(np.arange(frames), centres, weights)


def stretched(maps: np.ndarray) -> np.ndarray:
    """Scale values to 0..1 by their minimum and maximum; return zeros if they are all equal."""
    low, high = float(maps.min()), float(maps.max())
    return (maps - low) / (high - low) if high > low else np.zeros_like(maps)


def heated(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay heat (T, H, W) in 0..1 over frames: cold positions dim and grey, hot ones coloured; uint8 (T, H, W, 3)."""
    from matplotlib import colormaps

    images = frames.astype(np.float32) / 255.0
    grey = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    glow = colormaps[HEAT](COLDEST + (1.0 - COLDEST) * heat)[..., :3].astype(np.float32)
    # grows slower than the colour, so that lukewarm positions stay readable
    strength = (heat.astype(np.float32) ** 1.3)[..., None]
    lit = (1.0 - strength) * DIM * grey + strength * images
    mixed = (1.0 - COVER * strength) * lit + COVER * strength * glow
    return (mixed.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def flow_colours(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Colour motion (h, w, 2), dx and dy: hue is direction, saturation is speed; uint8 (H, W, 3)."""
    import cv2

    large = cv2.resize(np.asarray(flow, dtype=np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    speed, direction = cv2.cartToPolar(large[..., 0], large[..., 1], angleInDegrees=True)
    fast = max(1.0, float(np.percentile(speed, 99)))  # at least one pixel, so that noise of a still image stays white
    colours = np.stack([direction / 2, 255 * (speed / fast).clip(0, 1), np.full_like(speed, 255)], axis=-1).astype(
        np.uint8
    )
    return cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)
