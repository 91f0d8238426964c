"""Runs to explain, whose networks have random weights and uneven attention, and the command."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from posture.__main__ import main
from posture.config import ActionRun
from posture.models import build
from posture.models.attention import STCBAM
from posture.models.configs import C3D, IMPROVED
from posture.runs.folder import RunFolder

CLASSES = ("left", "right", "up")
IMPROVED_SMALL = C3D(**{**IMPROVED, "classes": 3, "width": 0.125, "size": 32})


def make_run(place, config=IMPROVED_SMALL, **data):
    """Return a run in the folder `place` whose network has random weights and an attention that is not even."""
    torch.manual_seed(0)
    folder = RunFolder(str(place / "runs"), "one")
    run = ActionRun(name="one", model=config, data={"recipe": "40x52-stretch-f20-s2-w2-raw", **data})
    model = build(config)
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):  # residual branches start at zero
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, STCBAM):
            torch.nn.init.normal_(module.spatial.mlp[-1].weight, std=20.0)
            torch.nn.init.normal_(module.temporal.convolution.weight, std=20.0)
    checkpoint = place / "checkpoint"
    checkpoint.mkdir()
    save_file(model.state_dict(), checkpoint / "model.safetensors")
    (checkpoint / "state.json").write_text(json.dumps({"epoch": 7}))
    folder.write_json(
        "run.json", {"run": run.model_dump(mode="json"), "store": "x", "versions": {}, "classes": CLASSES}
    )
    folder.publish_checkpoint("epoch-0007", checkpoint, best=True)
    return folder


def run_command(*arguments):
    try:
        main(["explain", *arguments])
    except SystemExit as end:
        assert not end.code
