"""Tell if decord, the decoder of earlier versions, gave the frames that a player shows. Stores still hold its clips.

Found by trying a hundred pairs of container and codec: pairs that are not listed here gave other frames in some file,
or failed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posture.data.decode.orientation import Orientation
from posture.data.decode.packets import Packets

WHOLE_IMAGES = frozenset({"mjpeg", "prores", "dvvideo", "dnxhd", "ffv1", "rawvideo"})
"""Codecs in which every frame is a keyframe."""
FORWARD_ONLY = frozenset({"h263", "flv1", "wmv1", "wmv2", "msmpeg4v2", "msmpeg4v3", "msmpeg4"})
"""Codecs without frames that refer to later ones."""
STAMPED = frozenset({"h264", "vp8", "vp9", "av1", "libdav1d"})
"""Codecs that were exact in containers that say when each frame is shown."""
EXACT = (
    ({"mov", "matroska", "flv"}, WHOLE_IMAGES | FORWARD_ONLY | STAMPED),
    ({"avi", "asf", "mxf", "dv"}, WHOLE_IMAGES | FORWARD_ONLY),
)


def doubt(container: Any, stream: Any, packets: Packets, order: np.ndarray | None, orientation: Orientation) -> str:
    """Return why decord may have given other frames, in a few words; empty if they were the same."""
    names, codec = set(container.format.name.split(",")), stream.codec_context.name
    is_forward = codec in ("mpeg4", "mpeg2video", "mpeg1video") and not stream.codec_context.has_b_frames
    if not packets.shown.all():
        return "an edit list leaves frames out"
    if orientation != Orientation():
        return "its images are turned"
    if not any(
        names & containers and (codec in codecs or (is_forward and "mov" in containers)) for containers, codecs in EXACT
    ):
        return f"random access to {codec} in {container.format.name.partition(',')[0]}"
    if order is None:
        return "its packets do not say which frame is which"
    return "its time stamps repeat" if (np.diff(order) == 0).any() else ""
