"""Networks. `build(config)` imports the architecture it needs when it needs it; `posture.models.configs` needs no
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def build(config: Any, *, detect: Any = None) -> nn.Module:
    """Return the network of a configuration in `posture.models.configs` or `detector_configs`, with random weights from
    torch's global generator.

    `detect`, a `posture.config.Detect`, is for torchvision's detectors, which suppress overlaps within the network.
    Raises ValueError for an unknown `kind`, InputError for a network larger than this machine's memory.
    """
    from dataclasses import replace

    import torch

    if torch.get_default_device().type != "meta":
        from posture.models.size import refuse_unbuildable

        refuse_unbuildable(config)
    if getattr(config, "input", "rgb") == "late":
        from posture.models.frame_inputs import LATE, LateFusion

        return LateFusion({kind: build(replace(config, input=kind)) for kind in LATE})
    if config.kind == "c3d":
        from posture.models.c3d import C3D

        return C3D(config)
    if config.kind == "linear":
        from posture.models.linear import LinearClassifier

        return LinearClassifier(config)
    if config.kind == "two_stream":
        from posture.models.two_stream import TwoStream

        return TwoStream(config)
    if config.kind in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"):
        from posture.models.torchvision_videos import torchvision_video

        return torchvision_video(config)
    if config.kind == "yolov5":
        from posture.models.yolov5 import YOLOv5

        return YOLOv5(config)
    if config.kind == "yolov7":
        from posture.models.yolov7 import YOLOv7

        return YOLOv7(config)
    if config.kind == "ssd300":
        from posture.models.torchvision_detectors import ssd300

        return ssd300(config, detect)
    if config.kind == "fasterrcnn":
        from posture.models.torchvision_detectors import faster_rcnn

        return faster_rcnn(config, detect)
    raise ValueError(
        "kind must be one of 'c3d', 'two_stream', 'r3d_18', 'mc3_18', 'r2plus1d_18', 's3d', 'mvit_v2_s', 'swin3d_t', "
        f"'yolov5', 'yolov7', 'ssd300', 'fasterrcnn', not {config.kind!r}"
    )
