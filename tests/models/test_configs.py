"""The configuration of the networks: what is allowed, what is refused and how, and that it needs no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from posture.models.configs import C3D, IMPROVED


def test_importing_configurations_imports_no_torch():
    code = (
        "import sys, posture.models.configs\n"
        "sys.exit(sum(name.split('.')[0] in ('torch', 'numpy', 'pydantic') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_width_scales_every_width_to_multiples_of_eight():
    assert C3D(width=0.5).channels == (32, 64, 128, 256, 256)
    assert C3D(width=0.5).hidden_features == 2048
    assert C3D(width=0.3).channels == (16, 40, 80, 152, 152)  # 19.2, 38.4, 76.8, 153.6, 153.6
    assert C3D(width=0.01).channels == (8, 8, 8, 8, 8)
    assert C3D(widths=(10, 20, 30, 40, 50)).channels == (10, 20, 30, 40, 50)  # width 1 takes them as they are


@pytest.mark.parametrize(
    ("placement", "stages"),
    [
        ("early", ("stage1", "stage2")),
        ("late", ("stage4", "stage5")),
        ("all", ("stage1", "stage2", "stage3", "stage4", "stage5")),
        ("stage4", ("stage4",)),
        ("stage5+stage3", ("stage3", "stage5")),
        ("stage3, stage5", ("stage3", "stage5")),
        ("early+stage3", ("stage1", "stage2", "stage3")),
    ],
)
def test_placement_names_stages(placement: str, stages: tuple[str, ...]):
    assert C3D(attention="stcbam", placement=placement).attention_stages == stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": ""}, "selects no stage; allowed are early, late, all, stage1"),
        ({"placement": "+"}, "selects no stage"),
        ({"placement": "stage6"}, "there is no 'stage6'; allowed are early, late, all, stage1"),
        (
            {"norm": "group", "groups": 3},
            "groups 3 does not divide stage1's width 64; .* allow groups 1, 2, 4, 8, 16, 32, 64",
        ),
        (
            {"norm": "group", "groups": 16, "width": 0.125},
            "groups 16 does not divide stage1's width 8; .* allow groups 1, 2, 4, 8$",
        ),
        (
            {"norm": "group", "widths": (64, 128, 252, 512, 512)},
            "groups 8 does not divide stage3's width 252; .* allow groups 1, 2, 4$",
        ),
        ({"norm": "layer"}, "norm must be one of 'none', 'batch', 'group', not 'layer'"),
        ({"kind": "i3d"}, "kind must be one of 'c3d', not 'i3d'"),
        ({"asymmetric": "both"}, "asymmetric must be one of 'none', 'pair', 'triple'"),
        ({"frames": 8}, "frames must be at least 16 with head 'fc', not 8.*head 'gap' takes 8"),
        ({"frames": 4, "head": "gap"}, "frames must be at least 8 with head 'gap', not 4"),
        ({"size": 15}, "size must be at least 16 pixels, not 15"),
        ({"classes": 0}, "classes must be .* greater than 0, not 0"),
        ({"width": -1.0}, "width must be .* greater than 0"),
        ({"width": float("nan")}, "width must be .* greater than 0"),
        ({"width": float("inf")}, "width must be a finite number"),
        ({"hidden": 0}, "hidden must be .* greater than 0"),
        ({"groups": 0}, "groups must be .* greater than 0"),
        ({"eps": 0.0}, "eps must be .* greater than 0"),
        ({"attention_reduction": 0}, "attention_reduction must be .* greater than 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
        ({"widths": (64, 128, 256, 512)}, "widths must be five numbers greater than 0"),
        ({"depths": (1, 1, 0, 2, 2)}, "depths must be five numbers greater than 0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_is_allowed(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        C3D(**changes)


def test_groups_and_placement_are_free_where_nothing_uses_them():
    assert C3D(norm="batch", groups=3, attention="none", placement="late").norm == "batch"


def test_improved_keeps_its_toggles_through_replace():
    small = replace(C3D(**IMPROVED), width=0.5, classes=4)
    assert (small.residual, small.head, small.channels) == (True, "gap", (16, 32, 64, 128, 256))
