"""Training: `fit` takes a run from its first step, or from a checkpoint, to its last.

In each step, the micro batches of a worker's share are augmented on the device. Their summed losses are divided by
counts over all workers, so any number of workers and any accumulation give the same gradient. Everything random is
keyed on seed, epoch and clip. So a run that is stopped and resumed, even within an epoch, ends like an uninterrupted
one, and any number of workers learns the same from data in memory. There are four exceptions. Batch normalisation
sees the clips of one forward pass of all workers, which are fewer with `scale.micro_batch`. Mixup and cutmix mix the
clips of one forward pass of one worker. Pretraining by contrast compares the clips of one forward pass of one worker.
SSD and Faster R-CNN average their losses over one worker's images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from posture.errors import InputError
from posture.models.keyed import set_keys
from posture.models.meta import class_tensors
from posture.train import checkpoint
from posture.train.batches import Batch, Batches
from posture.train.context import Context
from posture.train.evaluate import validate
from posture.train.meter import Meter, Progress, added
from posture.train.optim import (
    Average,
    Precision,
    average_decay,
    build_optimizer,
    freeze,
    learning_rate,
    set_learning_rate,
    train_mode,
)
from posture.train.solve import solve
from posture.train.teach import Teachers


class Diverged(InputError):
    """The loss became NaN or infinite."""


READ_EVERY = 10
"""Steps between readings of the loss; each reading synchronises the GPU."""


class MetricTracker(Protocol):
    """Receiver of metrics during training."""

    def log(self, metrics: dict[str, Any], step: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class Learner:
    """Everything that a step needs."""

    run: Any
    task: Any
    ctx: Context
    model: nn.Module
    """The bare network."""
    network: Any
    """The same network, averaging gradients over all workers."""
    forward: Callable[..., Tensor]
    """`network`, compiled if `scale.compile` is on."""
    optimizer: torch.optim.Optimizer
    average: Average | None
    precision: Precision
    teachers: Teachers | None = None


def fit(
    run: Any,
    task: Any,
    batches: Batches,
    ctx: Context,
    tracker: MetricTracker | None,
    *,
    model: nn.Module,
    teachers: Teachers | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Train `model` as `run` (a `posture.config.ActionRun` or `DetectionRun`) says, from the checkpoint `resume` if
    given.

    After every epoch it validates on `batches.validation`, reports a checkpoint and logs. If `ctx.should_stop()`, it
    saves after the step and returns. Returns `history` (a dict per epoch), `best` (the value of `run.metric`),
    `best_epoch`, `epoch` (number of completed epochs) and `stopped`: "" at the end of the run, "early" if patience ran
    out, "asked" otherwise. Epochs count from 1.
    Raises Diverged if the loss becomes NaN or infinite, InputError if the checkpoint does not fit.
    """
    # 1. Put the model on its device, and resume
    learner, progress = _prepare(run, task, batches, ctx, model=model, resume=resume)
    learner.teachers = teachers.to(ctx.device) if teachers else None
    average = learner.average.model if learner.average else None

    def save(directory: Path) -> None:
        state = asdict(progress) | {"order": batches.order, "run": run.model_dump(mode="json")}
        state["scaler"] = learner.precision.scaler.state_dict()
        checkpoint.save(directory, model=model, average=average, optimizer=learner.optimizer, state=state)

    stopped = ""
    while progress.epoch < run.epochs:
        if ctx.broadcast(run.patience > 0 and progress.epoch - progress.best_epoch >= run.patience):
            stopped = "early"
            break
        # 2. Train one epoch, or its rest
        began, before = time.perf_counter(), progress.step
        if run.solved:
            figures, asked = solve(learner.model, batches, ctx)
        else:
            figures, asked = _train_epoch(learner, batches, progress, tracker)
        record = {"epoch": progress.epoch + 1} | figures
        if asked:  # within the epoch: save, then go on or stop
            if progress.step > before:
                ctx.report({"epoch": progress.epoch + 1, "step": progress.step}, save, best=False)
            if asked == "save":
                ctx.settle()
                continue
            stopped = "asked"
            break
        # 3. Validate
        found = validate(average or model, task, batches, ctx, precision=learner.precision)
        record |= {f"val_{name}": value for name, value in found.items()} | {"seconds": time.perf_counter() - began}
        _refuse_divergence(record.get("val_loss", 0.0), run, progress)

        # 4. Save, as the best if it is, and log
        progress.history.append(record)
        progress.epoch += 1
        progress.begin_epoch()
        value = record[f"val_{run.metric}"]
        better = progress.best is None or value > progress.best
        if better:
            progress.best, progress.best_epoch = value, progress.epoch
        ctx.report(record, save, best=better)
        if tracker is not None:
            tracker.log(record, progress.epoch * batches.steps_per_epoch)
    # 5. Wait for uploads
    ctx.settle()
    return {name: getattr(progress, name) for name in ("history", "best", "best_epoch", "epoch")} | {"stopped": stopped}


def _prepare(
    run: Any, task: Any, batches: Batches, ctx: Context, *, model: nn.Module, resume: Path | None
) -> tuple[Learner, Progress]:
    """Return the model on its device with optimiser and average, in the checkpoint's state, spread over the workers."""
    # all steps have the same shapes: time cuDNN's convolutions once, and keep the fastest
    torch.backends.cudnn.benchmark = True
    model, last = model.to(ctx.device), frozenset[str]()
    if (run.optim.backbone_lr, run.optim.layer_decay, run.optim.head_lr) != (1.0, 1.0, 1.0):
        last = class_tensors(run.model)
        if not run.optim.backbone_lr:
            freeze(model, last=last)
    decay = average_decay(run.optim, steps=batches.steps_per_epoch * run.epochs)
    average = Average(model, decay=decay) if run.optim.ema and not run.solved else None
    optimizer = build_optimizer(model, run.optim, last=last)
    precision, progress = Precision(run.scale.amp, ctx.device), Progress()
    if resume is not None:
        state = checkpoint.load(resume, model=model, average=average.model if average else None, optimizer=optimizer)
        if state["scaler"] and precision.scaler.is_enabled():
            precision.scaler.load_state_dict(state["scaler"])
        progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
        if progress.step and state["order"] != batches.order:
            if state["order"] | {"workers": None} != batches.order | {"workers": None}:
                before, now = (
                    ", ".join(f"{name} {value}" for name, value in order.items())
                    for order in (state["order"], batches.order)
                )
                raise InputError(
                    f"{resume} stopped within epoch {progress.epoch + 1}, with {before}; "
                    f"it cannot be resumed within that epoch with {now}"
                )
            progress.begin_epoch()  # another number of workers streams other clips: the epoch begins again
    network = ctx.wrap(model)
    forward = torch.compile(network) if run.scale.compile else network
    return Learner(run, task, ctx, model, network, forward, optimizer, average, precision), progress


def _train_epoch(learner: Learner, batches: Batches, progress: Progress, tracker: Any) -> tuple[dict[str, Any], str]:
    """Train the rest of an epoch, or until a worker is asked to stop or to save.

    Returns the epoch's figures (see `Meter.figures`) and the request: "stop", "save" or "".
    """
    run, ctx, task = learner.run, learner.ctx, learner.task
    meter, rate = Meter(progress, ctx, clips_per_step=run.scale.global_batch), 0.0
    asked = ""
    train_mode(learner.network)
    with closing(batches.training(progress.epoch, start_step=progress.step)) as steps:
        while progress.step < batches.steps_per_epoch:
            micro_batches = meter.next(steps)
            counts = added(batch.counts(task) for batch in micro_batches)
            requests = [float(ctx.should_stop()), float(ctx.should_save())]
            stop, save, *summed = ctx.sum([*requests, *counts.values()]).tolist()
            if stop or save:
                asked = "stop" if stop else "save"
                break
            counts = dict(zip(counts, summed, strict=True))  # of all workers
            step = progress.epoch * batches.steps_per_epoch + progress.step
            rate = learning_rate(step, optim=run.optim, steps_per_epoch=batches.steps_per_epoch, epochs=run.epochs)
            meter.add(_step(learner, micro_batches, counts, epoch=progress.epoch, step=step, rate=rate), counts)
            if (progress.step - 1) % READ_EVERY == 0:
                _refuse_divergence(meter.read(), run, progress)
                if tracker is not None:
                    tracker.log({"loss": meter.loss, "lr": rate}, step + 1)
            position = {"epoch": progress.epoch + 1, "step": progress.step}
            totals = {"epochs": run.epochs, "steps": batches.steps_per_epoch}
            ctx.progress(position | totals | {"loss": meter.loss, "clips_per_second": meter.clips_per_second})
    _refuse_divergence(meter.read(), run, progress)
    return meter.figures(rate), asked


def _step(
    learner: Learner, micro_batches: list[Batch], counts: dict[str, float], *, epoch: int, step: int, rate: float
) -> dict[str, Tensor]:
    """Do one optimiser step; `counts` are those of all workers. Returns the sum of each loss term over this worker's
    clips, on the device.
    """
    run, ctx, scaler = learner.run, learner.ctx, learner.precision.scaler
    torch.manual_seed(
        int(np.random.SeedSequence((run.seed % 2**64, epoch, step, ctx.rank)).generate_state(1, np.uint64)[0] >> 1)
    )
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(micro_batches, start=1):
        inputs, targets = batch.tensors(run, ctx.device, epoch=epoch)
        set_keys(learner.model, batch.keys(run, epoch=epoch), ctx.device)
        # Workers exchange gradients once per step, with the last micro batch.
        with nullcontext() if ctx.world_size == 1 or number == len(micro_batches) else learner.network.no_sync():
            with learner.precision.autocast():
                if learner.teachers is not None:
                    targets = learner.teachers.targets(inputs, targets)
                outputs = learner.forward(*inputs, targets) if learner.task.in_network else learner.forward(*inputs)
            terms = learner.task.loss(outputs, targets)
            loss = torch.stack([total / max(counts[term], 1.0) for term, (total, _) in terms.items()]).sum()
            # DDP averages gradients over workers, but the counts are those of all workers: undo the average
            scaler.scale(loss * ctx.world_size).backward()
        sums = added([sums, {term: total.detach().double() for term, (total, _) in terms.items()}])
    set_learning_rate(learner.optimizer, rate)
    if run.optim.clip_norm:
        scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), run.optim.clip_norm)
    scaler.step(learner.optimizer)
    scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model, step=step)
    return sums


def _refuse_divergence(loss: float | None, run: Any, progress: Progress) -> None:
    if loss is not None and not math.isfinite(loss):
        raise Diverged(
            f"the loss became {loss} in epoch {progress.epoch + 1}, at step {progress.step}; "
            f"lower optim.lr (now {run.optim.lr:g}), lengthen optim.warmup_epochs (now {run.optim.warmup_epochs:g}), "
            f"or set optim.clip_norm (now {run.optim.clip_norm:g})"
        )
