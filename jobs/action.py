"""Action classifiers: the published C3D and the paper's improved C3D (sections 2.2 and 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

from posture.config import ActionRun, Optim, Scale, Study, override
from posture.models.configs import C3D, IMPROVED, LITTLE_FOOTAGE, Linear, TorchvisionVideo, TwoStream
from posture.runs.recipes import points


def c3d() -> ActionRun:
    """C3D as published (Tran 2015) with the paper's training values: learning rate 0.025, weight decay 0.0003.

    The paper names no optimiser; its learning rate suits SGD with momentum. Without normalisation a fresh network
    diverges within a few steps at this rate, so gradients are clipped. The paper's frames are 56 x 56: `--set
    model.size=56`.
    """
    return ActionRun(
        name="c3d", model=C3D(), optim=Optim(name="sgd", lr=0.025, weight_decay=0.0003, momentum=0.9, clip_norm=1.0)
    )


def improved() -> ActionRun:
    """The paper's improved C3D on 16 frames of 56 x 56, as it learns most from little footage.

    It departs from the paper, or from C3D if the paper says nothing, in these points:

    * Optimiser: AdamW at a rate of 0.002 with weight decay 0.05, without gradient clipping. The paper has a rate of
      0.025 and weight decay 0.0003, and names no optimiser; that rate suits SGD with momentum, which `c3d` has.
    * Normalisation: batch normalisation with standardised filters (Qiao 2019) of one gain each. The paper has group
      normalisation; `improved_paper` has it, in 4 groups.
    * Input: half of the stem's filters see frames, the others differences of neighbouring frames. The paper's see
      frames.
    * Stem: one convolution of 3 x 7 x 7 at stride 2, split in two, instead of C3D's first convolution and pooling. The
      paper splits large kernels but does not say which.
    * Widths 32, 64, 128, 256, 512 and 1, 2, 2, 2, 2 convolutions; C3D has 64, 128, 256, 512, 512 and 1, 1, 2, 2, 2.
    * Dropout of 0.2 before the last layer; C3D has 0.5 before its last two.
    * Attention in stages 4 and 5, starting nearly open; the paper does not say in which stages it is.
    * Residual branches that count from the first step (gain 1; networks with batch normalisation often start at 0).

    Epochs and batches fit the footage (`epochs: auto`): at least 50 epochs and 150 steps, in batches of about 8 if
    there are few clips. `posture/runs/schedule.py` has the figures behind it. In a comparison, all networks get the
    same.

    Accuracy and loss on held-out groups after 15 to 20 passes, at a quarter of the width, 40 pixels and batches of 8
    (one seed): 60 clips of four UCF101 classes with 120 held out, and 96 clips of generated athletes with 192 held out
    (chance is ln 8 = 2.08):

    | setting | UCF101 | generated |
    |---|---|---|
    | `improved` | 87.5 %, 0.36 | 51.8 %, 0.93 |
    | at a learning rate of 0.004 | 87.1 %, 0.34 | 58.1 %, 0.84 |
    | without standardised filters | 80.0 %, 0.63 | 56.0 %, 0.93 |
    | group normalisation in 2 groups | 73.8 %, 0.78 | 49.5 %, 1.12 |
    | frames and differences as six channels of one filter, without standardised filters | 75.8 %, 0.54 | 44.3 %, 1.31 |
    | frames alone, without standardised filters | 80.4 %, 0.46 | 40.6 %, 1.34 |
    | `improved_paper` | 79.2 %, 0.51 | 39.3 %, 1.47 |
    | `improved_paper` in 1 group | 84.2 %, 0.34 | 41.4 %, 1.50 |
    | `improved_paper` without standardised filters | 64.6 %, 1.06 | |

    On the test segments, after 14 passes over all training clips of UCF101 and 10 of the generated ones, `improved`
    reached 84.4 % and 63.4 %, `improved_paper` 82.7 % and 41.7 % (five and three seeds). The differences are 1.8 points
    (95 % interval -5.7 to 10.9; 90 segments), which may be chance, and 21.8 (17.6 to 25.9; 72 segments); their mean is
    11.8 (7.4 to 16.8). The linear classifier reached 64.4 % and 43.1 %. Training took 1.1 times as long. The learning
    rate is the best on `val` of 0.001, 0.002 and 0.004, except that 0.004 was better for `improved` on generated clips.
    On 5 clips of each class (75 and 50 passes, one seed), `improved` reached 77.8 % and 48.6 %, and the linear
    classifier 44.4 % and 36.1 %.
    """
    changes = {f"model.{field}": value for field, value in LITTLE_FOOTAGE.items()}
    return override(improved_paper(), {"name": "improved", "epochs": "auto", "least_steps": 150, **changes})


def improved_paper() -> ActionRun:
    """The paper's improved C3D with its group normalisation and on frames alone: `improved` before December 2026.

    It departs from the paper where `improved` does, except in normalisation and input: group normalisation in 4 groups
    with standardised filters, and frames. All of the stem's filters start as differences over time.

    The design follows from these losses on 240 held-out clips after 16 epochs on 234 clips of generated athletes (a
    quarter of the width, one seed; chance is ln 8 = 2.08). In batches of 16: 1.90 with half of the stem's filters
    starting as differences, 1.51 with standardised filters too, 1.43 with all of the stem's filters starting as
    differences. In batches of 8: 1.16, and 0.72 with residual branches that count from the first step; 0.74 with batch
    normalisation and branches that start at zero.
    """
    training = {"optim.name": "adamw", "optim.lr": 0.002, "optim.weight_decay": 0.05, "optim.clip_norm": 0.0}
    return override(
        c3d(), {"name": "improved_paper", **{f"model.{field}": value for field, value in IMPROVED.items()}, **training}
    )


def improved_112() -> ActionRun:
    """`improved` on frames of 112 x 112, the size at which most networks are published; about four times its compute.

    The store's default frames of 128 x 171 are large enough. `study_112` compares all networks at this size.
    """
    return override(improved(), {"name": "improved_112", "model.size": 112})


def r3d_18() -> ActionRun:
    """torchvision's 3-D ResNet-18 with random weights at the paper's 56 x 56, as a reference.

    The optimiser is as in torchvision's own training script from scratch: SGD at 0.01 (there for batches of 24 clips),
    momentum 0.9, weight decay 0.0001.
    """
    return ActionRun(
        name="r3d_18",
        model=TorchvisionVideo(kind="r3d_18", size=56),
        optim=Optim(name="sgd", lr=0.01, weight_decay=0.0001, momentum=0.9),
    )


def mc3_18() -> ActionRun:
    """torchvision's ResNet-18 that convolves over time only in its first stage; otherwise as `r3d_18`."""
    return override(r3d_18(), {"name": "mc3_18", "model.kind": "mc3_18"})


def r2plus1d_18() -> ActionRun:
    """torchvision's R(2+1)D-18, whose convolutions are split in space and time; otherwise as `r3d_18`."""
    return override(r3d_18(), {"name": "r2plus1d_18", "model.kind": "r2plus1d_18"})


def finetune() -> list[ActionRun]:
    """torchvision's six video networks, to start from its Kinetics-400 weights: `posture train
    jobs/action.py:finetune.r3d_18 --store STORE --weights r3d_18.pth`, with a state dict of
    `torchvision.models.video`. Nothing is downloaded.

    Frames, size and normalisation are those that torchvision's tables of weights state. The tables have 15 frames per
    second, 7.5 for `mvit_v2_s`: store every second frame of ordinary video, or every fourth (`posture ingest
    --stride`).
    Stored frames need the network's size at least (`--size 256x340`), and clips its number of frames (`--frames`);
    shorter ones repeat their last frame. AdamW trains the new last layer at 0.001, the block before it at a tenth of
    that, and each earlier block a quarter slower than the next.
    """
    imagenet = {"data.mean": (0.485, 0.456, 0.406), "data.std": (0.229, 0.224, 0.225)}
    changes = {
        "r3d_18": {"model.size": 112},
        "mc3_18": {"model.size": 112},
        "r2plus1d_18": {"model.size": 112},
        "s3d": {"model.size": 224, "model.frames": 128, "model.dropout": 0.2},
        "mvit_v2_s": {
            "model.size": 224,
            "model.dropout": 0.5,
            "data.mean": (0.45, 0.45, 0.45),
            "data.std": (0.225, 0.225, 0.225),
        },
        "swin3d_t": {"model.size": 224, "model.frames": 32, **imagenet},
    }
    optim = Optim(name="adamw", lr=0.001, weight_decay=0.05, clip_norm=1.0, backbone_lr=0.1, layer_decay=0.75)
    start = ActionRun(name="finetune", epochs=20, model=TorchvisionVideo(), optim=optim, scale=Scale(global_batch=16))
    return [override(start, {"name": kind, "model.kind": kind, **values}) for kind, values in changes.items()]


def two_stream() -> ActionRun:
    """Two-Stream (Simonyan & Zisserman 2014) on frames of 56 x 56: CNN-M-2048 on the middle frame and on ten fields of
    optical flow, fused late.

    The store needs flow: `posture ingest --store STORE --flow dis`. AdamW and a dropout of 0.5 learn from little
    footage: at an eighth of the width, after 20 epochs on 150 clips of UCF101, the validation loss (one seed) was 0.48,
    against 1.16 with the published dropout of 0.9. The temporal stream alone reached 0.70, against 1.03 and 0.76 with
    SGD at 0.01 and 0.05.
    """
    optim = Optim(name="adamw", lr=0.001, weight_decay=0.05, momentum=0.9)
    return ActionRun(name="two_stream", model=TwoStream(size=56, dropout=0.5), optim=optim)


def spatial_stream() -> ActionRun:
    """The spatial stream of Two-Stream alone: a single frame."""
    return override(two_stream(), {"name": "spatial_stream", "model.streams": "spatial"})


def temporal_stream() -> ActionRun:
    """The temporal stream of Two-Stream alone: optical flow."""
    return override(two_stream(), {"name": "temporal_stream", "model.streams": "temporal"})


def linear() -> ActionRun:
    """A linear classifier on a mean frame of 14 x 14 cells, the mean absolute difference of neighbouring frames in the
    same cells, and the course of that difference over time: the least that a network must exceed.

    It is fitted at once by logistic regression, with the weight decay that is best on `val`, so it has one epoch.
    `data.flip` adds mirror images and `data.balanced` weights the classes; other augmentation, the optimiser and the
    loss's fields have no effect.
    """
    return ActionRun(name="linear", model=Linear(), epochs=1)


def ablations() -> list[ActionRun]:
    """`improved` without one of its parts (A1-A3) or two (B1-B3), as in the paper's Figure 11; with the paper's group
    normalisation (C1), and on frames or differences alone (C2, C3).
    """
    residual, asymmetric, attention = (
        {"model.residual": False},
        {"model.asymmetric": "none"},
        {"model.attention": "none"},
    )
    without = {
        "A1": residual,
        "A2": asymmetric,
        "A3": attention,
        "B1": residual | asymmetric,
        "B2": residual | attention,
        "B3": asymmetric | attention,
        "C1": {"model.norm": "group"},
        "C2": {"model.input": "rgb"},
        "C3": {"model.input": "diff"},
    }
    return [override(improved(), {"name": name, **parts}) for name, parts in without.items()]


def augmentations() -> list[ActionRun]:
    """`improved` with one thing more against overfitting, or with milder crops and colours; each is one field, or two.

    None is a default, because none was better on both sets. Accuracy and loss as in the table of `improved`, one seed:

    | setting | UCF101 | generated |
    |---|---|---|
    | `improved` | 87.5 %, 0.36 | 51.8 %, 0.93 |
    | averaged weights and label smoothing | 82.9 %, 0.41 | 56.0 %, 0.94 |
    | dropout of 0.5 | 83.8 %, 0.44 | 50.3 %, 1.04 |
    | mixup | 76.2 %, 0.55 | 50.3 %, 1.17 |
    | cutmix | 87.9 %, 0.54 | 43.0 %, 1.50 |

    On 5 clips of each class (`posture/runs/schedule.py`), averaged weights and label smoothing had 75.0 % and 0.62 in
    place of 73.3 % and 0.86 on UCF101, and 49.0 % and 1.10 in place of 56.8 % and 0.86 on generated footage. The other
    rows are not trained yet.
    """
    more: dict[str, dict[str, object]] = {
        "mild": {
            "data.crop_scale": (0.7, 1.0),
            "data.crop_aspect": (0.9, 1.1),
            "data.brightness": 0.1,
            "data.contrast": 0.1,
            "data.saturation": 0.1,
        },
        "steps": {"data.steps": (1, 2)},
        "rand_augment": {"data.rand_augment": 2},
        "drift": {"data.rand_augment": 2, "data.drift": 1.0},
        "erasing": {"data.erasing": 0.25},
        "mixup": {"data.mixup": 0.2},
        "cutmix": {"data.cutmix": 1.0},
        "smoothing": {"loss.label_smoothing": 0.1},
        "ema": {"optim.ema": 0.99},
        "depth": {"model.stochastic_depth": 0.2},
        "dropout": {"model.dropout": 0.5},
        "late": {"model.input": "late"},
    }
    return [override(improved(), {"name": name, **parts}) for name, parts in more.items()]


def augmentation_study() -> Study:
    """`improved` beside each of `augmentations`, one row each, and the linear classifier: `posture compare
    jobs/action.py:augmentation_study --store STORE`.
    """
    rows = augmentations()
    return Study(
        name="augmentation",
        subject=improved(),
        ablations=tuple(rows),
        replacements=tuple(run.name for run in rows),
        references=(linear(),),
        titles={
            "improved": "Improved C3D",
            "linear": "Linear, mean frame and motion",
            "mild": "Milder crops and colours",
            "steps": "Two lengths of time",
            "rand_augment": "RandAugment",
            "drift": "RandAugment, drifting",
            "erasing": "Random erasing",
            "mixup": "Mixup",
            "cutmix": "Cutmix",
            "smoothing": "Label smoothing",
            "ema": "Averaged weights",
            "depth": "Stochastic depth",
            "dropout": "Dropout of 0.5",
            "late": "Two networks, late fusion",
        },
    )


def study() -> Study:
    """Models of the paper's Table 3 and Figures 11-13, all at 56 x 56: `posture compare jobs/action.py:study --store
    STORE`.
    """
    at_56 = {"model.size": 56}
    return Study(
        name="action",
        subject=improved(),
        baselines=(override(c3d(), at_56), two_stream(), spatial_stream(), temporal_stream()),
        ablations=(*ablations(), improved_paper()),
        replacements=("C1", "improved_paper"),
        departures=points(improved),
        references=(linear(), r3d_18(), mc3_18(), r2plus1d_18()),
        titles={
            "improved": "Improved C3D",
            "c3d": "C3D",
            "two_stream": "Two-Stream",
            "spatial_stream": "Spatial stream",
            "temporal_stream": "Temporal stream",
            "linear": "Linear, mean frame and motion",
            "r3d_18": "R3D-18",
            "mc3_18": "MC3-18",
            "r2plus1d_18": "R(2+1)D-18",
            "A1": "A1 no residual",
            "A2": "A2 no asymmetric",
            "A3": "A3 no attention",
            "B1": "B1 no residual, asymmetric",
            "B2": "B2 no residual, attention",
            "B3": "B3 no asymmetric, attention",
            "C1": "C1 group norm",
            "C2": "C2 no differences",
            "C3": "C3 no frames",
            "improved_paper": "Paper's own setting",
        },
    )


def study_112() -> Study:
    """`study` at 112 x 112, the size at which most networks are published. The linear classifier stays at 56."""

    def larger(runs: Iterable[ActionRun]) -> tuple[ActionRun, ...]:
        return tuple(run if run.model.solved else override(run, {"model.size": 112}) for run in runs)

    whole = study()
    parts = {part: larger(getattr(whole, part)) for part in ("baselines", "ablations", "references")}
    (subject,) = larger([whole.subject])
    return whole.model_copy(update={"name": "action-112", "subject": subject, **parts})


def small_study() -> Study:
    """`study` for a CPU: networks narrowed to a quarter of their widths if they can be, trained in batches of 8 with
    AdamW.

    C3D has no dropout here: with 0.5 it was still at chance after 24 epochs of generated footage, and without it had
    learned.
    """
    whole = study()
    small = {"model.width": 0.25, "scale.global_batch": 8}
    plain = override(
        whole.baselines[0], {"optim.name": "adamw", "optim.lr": 0.0003, "optim.clip_norm": 0.0, "model.dropout": 0.0}
    )
    return whole.model_copy(
        update={
            "name": "small-action",
            "subject": override(whole.subject, small),
            "ablations": tuple(override(run, small) for run in whole.ablations),
            "baselines": tuple(override(run, small) for run in (plain, *whole.baselines[1:])),
            "references": tuple(override(run, {"scale.global_batch": 8}) for run in whole.references),
            "search_share": 0.5,
        }
    )
