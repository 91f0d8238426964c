"""A run on Ray Train: gloo on CPUs, NCCL on GPUs. Checkpoints and resuming are ours (`posture/runs.py`), restarts are Ray's."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posture.config import Run, Scale
from posture.data.files import exists, is_remote
from posture.distributed import cluster
from posture.distributed.context import Board, RayContext
from posture.distributed.feed import Feed, feed
from posture.errors import InputError
from posture.launch import Session, run_worker
from posture.runs import RunFolder

MAX_FAILURES = 3
"""Times that lost workers are started again, each from the last checkpoint."""
READER_CPUS = 0.5
"""Kept free for the tasks that read footage, and for those that read it again when a node is lost."""


def train(session: Session, *, on_progress: Callable[[dict[str, Any]], None], on_record: Callable[[dict[str, Any]], None],
          on_device: Callable[[str], None], asked_to_stop: Callable[[], bool], feeds: list[Feed] | None = None) -> dict[str, Any]:
    """Train `session` on the cluster that `cluster.connect` finds. Calls back as it goes; returns {"epoch", "best", "best_epoch", "stopped"}.

    `feeds`, for training and validation, where several runs share what was read already.
    Raises InputError where the cluster cannot hold the run: up front, with the numbers.
    """
    cluster.connect()
    cpus, gpus = resources(session.run.scale, cpus=cluster.cpus(), gpus=cluster.gpus())
    if cluster.nodes() > 1 and not is_remote(session.folder.uri):
        refuse_unshared(session.folder.path("run.json"))
    feeds = feeds or feed([session.train, session.val], mode=session.run.data.feed)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # no other node that is lost takes it along
    board = Board.options(scheduling_strategy=here).remote()
    notes = tempfile.TemporaryDirectory(prefix="posture-ray-")  # what Ray Train writes down for itself; ours is in the run's folder
    trainer = TorchTrainer(
        _work,
        train_loop_config={"run": session.run, "classes": session.classes, "folder": session.folder, "board": board, "feeds": feeds},
        scaling_config=ray.train.ScalingConfig(num_workers=session.run.scale.workers, use_gpu=gpus > 0,
                                               resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {})),
        run_config=ray.train.RunConfig(name=f"attempt-{time.time_ns()}", storage_path=notes.name,
                                       failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES, controller_failure_limit=3)),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=600))
    done: dict[str, Any] = {}
    fitting = threading.Thread(target=_fit, args=(trainer, done), name="trainer", daemon=True)
    fitting.start()
    with notes:
        _watch(board, fitting, on_progress=on_progress, on_record=on_record, on_device=on_device, asked_to_stop=asked_to_stop)
    if error := done.get("error"):
        raise error
    said = ray.get(board.read.remote())
    if refusal := said.get("refused"):
        raise InputError(refusal)
    return said["outcome"]


def resources(scale: Scale, *, cpus: float, gpus: float) -> tuple[float, float]:
    """CPUs and GPUs for each worker. Raises InputError, with the numbers, where the cluster cannot hold them all."""
    workers = scale.workers
    wanted_gpus = (1.0 if gpus >= workers else 0.0) if scale.gpus_per_worker == "auto" else float(scale.gpus_per_worker)
    if workers * wanted_gpus > gpus:
        raise InputError(f"scale.workers {workers} x scale.gpus_per_worker {wanted_gpus:g} need {workers * wanted_gpus:g} GPUs, "
                         f"the cluster has {gpus:g}")
    free = cpus - READER_CPUS
    if scale.cpus_per_worker == "auto":
        share = free / workers
        wanted_cpus = float(int(share)) if share >= 1 else max(0.1, int(share * 10) / 10)
    else:
        wanted_cpus = float(scale.cpus_per_worker)
    if workers * wanted_cpus > free:
        raise InputError(f"scale.workers {workers} x scale.cpus_per_worker {wanted_cpus:g} and {READER_CPUS:g} to read footage need "
                         f"{workers * wanted_cpus + READER_CPUS:g} CPUs, the cluster has {cpus:g}; use fewer workers, or a smaller share")
    return wanted_cpus, wanted_gpus


def _work(config: dict[str, Any]) -> None:
    """One Ray Train worker."""
    run: Run = config["run"]
    folder: RunFolder = config["folder"]
    feeds: list[Feed] = config["feeds"]
    if not folder.exists():
        raise InputError(f"{folder.uri} cannot be seen from {ray.util.get_node_ip_address()}; --runs must be storage that all nodes share")
    ctx = RayContext(folder, config["board"])
    train, val = (item.open() for item in feeds)
    try:
        outcome = run_worker(run, config["classes"], folder, ctx, train=train, val=val)
        message = {"outcome": {name: outcome[name] for name in ("epoch", "best", "best_epoch", "stopped")}}
    except InputError as error:  # all workers meet it alike; starting them again would not help
        message = {"refused": str(error)}
    if ctx.rank == 0:
        ray.get(config["board"].post.remote(message))


def _fit(trainer: TorchTrainer, done: dict[str, Any]) -> None:
    try:
        trainer.fit()
    except Exception as error:
        done["error"] = error


def _watch(board: Any, fitting: threading.Thread, *, on_progress: Callable[[dict[str, Any]], None], on_record: Callable[[dict[str, Any]], None],
           on_device: Callable[[str], None], asked_to_stop: Callable[[], bool]) -> None:
    """Hand what rank 0 posts to the command, until training ends."""
    device, epoch, told = None, None, False
    while True:
        running = fitting.is_alive()
        update = ray.get(board.read.remote())
        if update.get("device") != device:
            device = update["device"]
            on_device(f"{update['world_size']} x {device}" if update["world_size"] > 1 else device)
        if (record := update.get("record")) and (record["epoch"], record.get("step")) != epoch:
            epoch = record["epoch"], record.get("step")
            on_record(record)
        if "steps" in update:
            on_progress(update)
        if asked_to_stop() and not told:
            board.ask_to_stop.remote()
            told = True
        if not running:
            return
        fitting.join(timeout=0.25)


def refuse_unshared(file: str) -> None:
    """Several nodes and a local path: every node must see `file`. Raises InputError naming the one that does not."""
    sees = ray.remote(num_cpus=0)(lambda: exists(file))
    for node in ray.nodes():
        if node["Alive"] and not ray.get(sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()):
            raise InputError(f"{file.rpartition('/')[0]} cannot be seen from node {node['NodeManagerAddress']}; on several nodes runs must be on "
                             "s3:// or storage that all nodes share")
