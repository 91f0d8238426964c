"""Two processes with torch.distributed compute what one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from posture.config import ActionRun, validate
from posture.tasks.action import ActionTask
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.loop import fit
from posture.train.shared_norm import SharedBatchNorm
from posture.train.workers import spread
from tests.support.small_run import CLASSES, DiskFolder, ProcessContext, SmallFootage, SmallNetwork, small_run

pytestmark = pytest.mark.long

STEADY = {"epochs": 2, "optim__clip_norm": 1.0, "optim__ema": 0.5}
STOPPED = {"epochs": 2, "scale__micro_batch": 3}


def footage() -> tuple[SmallFootage, SmallFootage]:
    return SmallFootage(41), SmallFootage(21, seed=1)


def work(rank: int, world_size: int, folder: str, steady: dict[str, Any], stopped: dict[str, Any]) -> None:
    """What each process does: a whole run; then one that rank 1 alone is asked to stop, and its second half."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    result, _ = train(validate(steady), ProcessContext(rank, world_size, DiskFolder(Path(folder, "steady"))))
    ctx = ProcessContext(rank, world_size, DiskFolder(Path(folder, "stopped")))
    ctx.stop_after = (1, 2)
    first, _ = train(validate(stopped), ctx)
    distributed.barrier()  # rank 0 has published
    resume = Path(folder, "stopped", "epoch-0001-step-000002")
    second, _ = train(
        validate(stopped), ProcessContext(rank, world_size, DiskFolder(Path(folder, "resumed"))), resume=resume
    )
    Path(folder, f"rank{rank}.json").write_text(json.dumps([result, first, second]))
    distributed.destroy_process_group()


def train(run: ActionRun, ctx: LocalContext, *, resume: Path | None = None) -> tuple[dict[str, Any], nn.Module]:
    training, validation = footage()
    batches = ClipBatches(training, run, rank=ctx.rank, world_size=ctx.world_size, validation=validation)
    model = SmallNetwork()
    with ctx:
        return fit(run, ActionTask(run, CLASSES), batches, ctx, None, model=model, resume=resume), model


def losses(result: dict[str, Any]) -> list[float]:
    names = ("train_loss", "val_loss", "val_accuracy", "val_mean_class_accuracy")
    return [record[name] for record in result["history"] for name in names]


def test_two_workers_train_validate_stop_and_resume_as_one(tmp_path: Path) -> None:
    steady, stopped = (small_run(scale__workers=2, **changes).model_dump(mode="json") for changes in (STEADY, STOPPED))
    for name in ("steady", "stopped", "resumed"):
        (tmp_path / name).mkdir()
    torch.multiprocessing.spawn(work, args=(2, str(tmp_path), steady, stopped), nprocs=2)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for place in range(3):
        assert losses(ranks[0][place]) == losses(ranks[1][place])

    one, _ = train(small_run(**STEADY), LocalContext(device="cpu"))
    assert losses(ranks[0][0]) == pytest.approx(losses(one), rel=1e-4)
    assert (ranks[0][0]["best"], ranks[0][0]["best_epoch"]) == (one["best"], one["best_epoch"])

    one, _ = train(small_run(**STOPPED), LocalContext(device="cpu"))
    assert [first["stopped"] for _, first, _ in ranks] == ["asked", "asked"]
    assert losses(ranks[0][2]) == pytest.approx(losses(one), rel=1e-4)


def normalise(rank: int, world_size: int, folder: str) -> None:
    """Each process its half of a batch, through shared norms in DDP; the summed loss as `fit` has it."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    network, clips, weights = norms()
    network = spread(network, torch.device("cpu"))
    assert sum(isinstance(module, SharedBatchNorm) for module in network.modules()) == 3
    half = slice(rank * 3, rank * 3 + 3)
    for _ in range(2):
        network.zero_grad()
        found = network(clips[half])
        ((found * weights[half]).sum() * world_size).backward()
    network.eval()
    torch.save(
        {
            "found": found,
            "evaluated": network(clips[half]),
            "state": network.module.state_dict(),
            "gradients": [parameter.grad for parameter in network.parameters()],
        },
        f"{folder}/{rank}.pt",
    )
    distributed.destroy_process_group()


def norms() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Batch normalisation of maps and of vectors, with and without a momentum and weights; six clips whose halves are
    distributed differently.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4, momentum=None),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3, eps=1e-3, momentum=0.03),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.BatchNorm1d(5, affine=False),
    ).double()
    nn.init.uniform_(network[1].weight)
    return (
        network,
        torch.randn(6, 2, 6, 6).double() * torch.arange(1, 7).view(-1, 1, 1, 1) + 100,
        torch.randn(6, 5).double(),
    )


def test_batch_normalisation_sees_the_clips_of_all_workers(tmp_path: Path) -> None:
    """torch's own over the whole batch is the measure: outputs, gradients, running statistics and their counter."""
    torch.multiprocessing.spawn(normalise, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    network, clips, weights = norms()
    for _ in range(2):
        network.zero_grad()
        found = network(clips)
        (found * weights).sum().backward()
    close = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([rank["found"] for rank in ranks]), found, **close)
    torch.testing.assert_close(torch.cat([rank["evaluated"] for rank in ranks]), network.eval()(clips), **close)
    for rank in ranks:
        assert rank["state"].keys() == network.state_dict().keys()
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(rank["state"][name], tensor, **close)
        for gradient, parameter in zip(rank["gradients"], network.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, **close)
