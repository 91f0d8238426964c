"""Training: `fit` takes a run from its first step, or from a checkpoint, to its last.

One step: the micro batches of this worker's share are augmented on the device, and their summed losses divided by
counts over all workers, so that any number of workers and any accumulation give the gradient of one. Everything random
is keyed on seed, epoch and clip: a run that is stopped and resumed, in the middle of an epoch too, ends where an
undisturbed one does, and any number of workers learns the same from footage held in memory. What depends on more than
single clips does not: batch normalisation sees the clips of one forward pass of all workers, which are fewer with
`scale.micro_batch`; SSD and Faster R-CNN average their losses over one worker's images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from posture.errors import InputError
from posture.models.keyed import set_keys
from posture.train import checkpoint
from posture.train.batches import Batch, Batches
from posture.train.context import Context
from posture.train.evaluate import validate
from posture.train.optim import Average, Precision, build_optimizer, learning_rate, set_learning_rate


class Diverged(InputError):
    """The loss is no longer a number."""


READ_EVERY = 10
"""Steps between readings of the loss, for which the GPU must be waited for."""


class MetricTracker(Protocol):
    """Where numbers are shown while they come."""

    def log(self, metrics: dict[str, Any], step: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class Progress:
    """How far a run has come; saved in a checkpoint's state.json."""

    epoch: int = 0
    """Completed epochs."""
    step: int = 0
    """Completed optimiser steps of the epoch after those."""
    best: float | None = None
    best_epoch: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Per term of the loss, over all workers and the steps of the unfinished epoch."""
    loss_counts: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per completed epoch."""


@dataclass
class Learner:
    """What a step works with: `model` is the bare network, `network` the same over all workers, `forward` that again,
    perhaps compiled.
    """

    run: Any
    task: Any
    ctx: Context
    model: nn.Module
    network: Any
    forward: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    average: Average | None
    precision: Precision


def fit(
    run: Any,
    task: Any,
    batches: Batches,
    ctx: Context,
    tracker: MetricTracker | None,
    *,
    model: nn.Module,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Train `model` as `run` (a `posture.config.Run`) says, from the checkpoint folder `resume` if given.

    After every epoch it validates on `batches.validation`, reports a checkpoint and logs. When `ctx.should_stop()` it
    saves after the step and returns. Returns `history` (a dict per epoch), `best` (the value of `run.metric`),
    `best_epoch`, `epoch` (how many are complete) and `stopped`: "" at the end of the run, "early" when patience ran
    out, "asked" otherwise. Epochs count from 1.
    Raises Diverged where the loss becomes NaN or infinite, InputError where the checkpoint does not fit.
    """
    learner, progress = _prepare(run, task, batches, ctx, model=model, resume=resume)
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
        began, before = time.perf_counter(), progress.step
        figures, asked = _train_epoch(learner, batches, progress, tracker)
        record = {"epoch": progress.epoch + 1} | figures
        if asked:
            if progress.step > before:
                ctx.report({"epoch": progress.epoch + 1, "step": progress.step}, save, best=False)
            if asked == "save":
                ctx.settle()
                continue
            stopped = "asked"
            break
        found = validate(average or model, task, batches, ctx, precision=learner.precision)
        record |= {f"val_{name}": value for name, value in found.items()} | {"seconds": time.perf_counter() - began}
        _refuse_divergence(record.get("val_loss", 0.0), run, progress)

        progress.history.append(record)
        progress.epoch, progress.step, progress.loss_sums, progress.loss_counts = progress.epoch + 1, 0, {}, {}
        value = record[f"val_{run.metric}"]
        better = progress.best is None or value > progress.best
        if better:
            progress.best, progress.best_epoch = value, progress.epoch
        ctx.report(record, save, best=better)
        if tracker is not None:
            tracker.log(record, progress.epoch * batches.steps_per_epoch)
    ctx.settle()
    return {name: getattr(progress, name) for name in ("history", "best", "best_epoch", "epoch")} | {"stopped": stopped}


def _prepare(
    run: Any, task: Any, batches: Batches, ctx: Context, *, model: nn.Module, resume: Path | None
) -> tuple[Learner, Progress]:
    """The model on its device with optimiser and average, as the checkpoint left them, then spread over the workers."""
    # all steps have the same shapes: time cuDNN's convolutions once, keep the fastest
    torch.backends.cudnn.benchmark = True
    model = model.to(ctx.device)
    average = Average(model, decay=run.optim.ema) if run.optim.ema else None
    optimizer, precision, progress = build_optimizer(model, run.optim), Precision(run.scale.amp, ctx.device), Progress()
    if resume is not None:
        state = checkpoint.load(resume, model=model, average=average.model if average else None, optimizer=optimizer)
        if state["scaler"] and precision.scaler.is_enabled():
            precision.scaler.load_state_dict(state["scaler"])
        progress = Progress(**{name: state[name] for name in Progress.__dataclass_fields__})
        if (
            progress.step
            and state["order"] | {"workers": None} == batches.order | {"workers": None}
            and state["order"] != batches.order
        ):
            # other workers stream other clips: the epoch begins again with all
            progress.step, progress.loss_sums, progress.loss_counts = 0, {}, {}
        if progress.step and state["order"] != batches.order:
            began, now = (
                ", ".join(f"{name} {value}" for name, value in order.items())
                for order in (state["order"], batches.order)
            )
            raise InputError(
                f"{resume} stopped within epoch {progress.epoch + 1}, with {began}; it cannot go on there with {now}"
            )
    network = ctx.wrap(model)
    forward = torch.compile(network) if run.scale.compile else network
    return Learner(run, task, ctx, model, network, forward, optimizer, average, precision), progress


def _train_epoch(learner: Learner, batches: Batches, progress: Progress, tracker: Any) -> tuple[dict[str, Any], str]:
    """The rest of an epoch, or as much of it as there is before somebody asks to "stop" or to "save": `progress` then
    tells how far.

    Returns figures and what was asked. Figures: train_loss, its terms where it has several, lr, clips_per_second (of a
    detector, images) and data_wait_share (the time spent waiting for them).
    """
    run, ctx, task = learner.run, learner.ctx, learner.task
    first_step, began, waited, rate = progress.step, time.perf_counter(), 0.0, 0.0
    unread: dict[str, Tensor] = {}
    train_loss, asked = None, ""
    learner.network.train()
    with closing(batches.training(progress.epoch, start_step=first_step)) as steps:
        while progress.step < batches.steps_per_epoch:
            turned = time.perf_counter()
            micro_batches = next(steps)
            waited += time.perf_counter() - turned
            counts = _added(batch.counts(task) for batch in micro_batches)
            stop, save, *summed = ctx.sum([
                float(ctx.should_stop()),
                float(ctx.should_save()),
                *counts.values(),
            ]).tolist()
            if stop or save:
                asked = "stop" if stop else "save"
                break
            counts = dict(zip(counts, summed, strict=True))  # of all workers
            step = progress.epoch * batches.steps_per_epoch + progress.step
            rate = learning_rate(step, optim=run.optim, steps_per_epoch=batches.steps_per_epoch, epochs=run.epochs)
            unread = _added([unread, _step(learner, micro_batches, counts, epoch=progress.epoch, step=step, rate=rate)])
            progress.loss_counts = _added([progress.loss_counts, counts])
            progress.step += 1
            if (progress.step - 1) % READ_EVERY == 0:
                train_loss, unread = _read_loss(learner, progress, unread), {}
                if tracker is not None:
                    tracker.log({"loss": train_loss, "lr": rate}, step + 1)
            speed = (progress.step - first_step) * run.scale.global_batch / (time.perf_counter() - began)
            where = {
                "epoch": progress.epoch + 1,
                "epochs": run.epochs,
                "step": progress.step,
                "steps": batches.steps_per_epoch,
            }
            ctx.progress(where | {"loss": train_loss, "clips_per_second": speed})
    if unread:
        train_loss = _read_loss(learner, progress, unread)
    seconds = time.perf_counter() - began
    speed = (progress.step - first_step) * run.scale.global_batch / seconds
    terms = (
        {f"train_loss_{term}": value for term, value in _means(progress).items()} if len(progress.loss_sums) > 1 else {}
    )
    return {
        "train_loss": train_loss,
        **terms,
        "lr": rate,
        "clips_per_second": speed,
        "data_wait_share": waited / seconds,
    }, asked


def _step(
    learner: Learner, micro_batches: list[Batch], counts: dict[str, float], *, epoch: int, step: int, rate: float
) -> dict[str, Tensor]:
    """One optimiser step; `counts` are those of all workers. Returns the summed loss of this worker's clips, by term,
    on the device.
    """
    run, ctx, scaler = learner.run, learner.ctx, learner.precision.scaler
    torch.manual_seed(
        int(np.random.SeedSequence((run.seed % 2**64, epoch, step, ctx.rank)).generate_state(1, np.uint64)[0] >> 1)
    )
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for place, batch in enumerate(micro_batches, start=1):
        inputs, targets = batch.tensors(run, ctx.device, epoch=epoch)
        set_keys(learner.model, batch.keys(run, epoch=epoch), ctx.device)
        # Workers exchange gradients once per step, with the last micro batch.
        with nullcontext() if ctx.world_size == 1 or place == len(micro_batches) else learner.network.no_sync():
            with learner.precision.autocast():
                outputs = learner.forward(*inputs, targets) if learner.task.in_network else learner.forward(*inputs)
            terms = learner.task.loss(outputs, targets)
            # DDP averages gradients over workers; times their number, that is the sum the counts of all workers ask
            # for.
            loss = (
                torch.stack([total / max(counts[term], 1.0) for term, (total, _) in terms.items()]).sum()
                * ctx.world_size
            )
            scaler.scale(loss).backward()
        sums = _added([sums, {term: total.detach().double() for term, (total, _) in terms.items()}])
    set_learning_rate(learner.optimizer, rate)
    if run.optim.clip_norm:
        scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), run.optim.clip_norm)
    scaler.step(learner.optimizer)
    scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model, step=step)
    return sums


def _read_loss(learner: Learner, progress: Progress, unread: dict[str, Tensor]) -> float:
    """Add the losses not yet read, of all workers, to `progress`; returns the epoch's mean so far. Raises Diverged, on
    all workers.
    """
    summed = learner.ctx.sum([float(total) for total in unread.values()])
    progress.loss_sums = _added([progress.loss_sums, dict(zip(unread, summed.tolist(), strict=True))])
    loss = sum(_means(progress).values())
    _refuse_divergence(loss, learner.run, progress)
    return loss


def _means(progress: Progress) -> dict[str, float]:
    """Each term of the loss so far in this epoch; 0 where nothing was to be judged by it."""
    return {term: total / max(progress.loss_counts[term], 1.0) for term, total in progress.loss_sums.items()}


def _refuse_divergence(loss: float, run: Any, progress: Progress) -> None:
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss became {loss} in epoch {progress.epoch + 1}, at step {progress.step}; lower optim.lr (now {run.optim.lr:g}), "
            f"lengthen optim.warmup_epochs (now {run.optim.warmup_epochs:g}), or set optim.clip_norm (now {run.optim.clip_norm:g})"
        )


def _added(terms: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Values of the same name, summed."""
    total: dict[str, Any] = {}
    for values in terms:
        for name, value in values.items():
            total[name] = total[name] + value if name in total else value
    return total
