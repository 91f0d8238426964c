"""Train a run on Ray Train: gloo on CPUs, NCCL on GPUs.

Checkpoints and resuming are ours (`posture/runs/folder.py`), restarts of lost workers are Ray's.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posture.config import ActionRun, Scale
from posture.data.store.files import exists, is_remote
from posture.distributed import cluster
from posture.distributed.context import RayContext, new_board
from posture.distributed.feed import Feed, feed
from posture.distributed.resources import READER_CPUS, refuse_crowd, resources
from posture.errors import InputError, Unreachable
from posture.runs.folder import RunFolder
from posture.runs.prepare import Session
from posture.runs.worker import run_worker

MAX_FAILURES = 3
"""Number of restarts of lost workers, each from the last checkpoint."""
MAX_ELASTIC_FAILURES = 30
"""The same for a range of workers, whose nodes are expected to come and go."""


def train(
    session: Session, *, asked_to_stop: Callable[[], bool], feeds: list[Feed] | None = None, **callbacks: Any
) -> dict[str, Any]:
    """Train `session` on the cluster that `cluster.connect` finds, as `Backend.train` does with these `callbacks`.

    `feeds` are those for training and validation, if several runs share them.
    Raises InputError, with the numbers, before it begins if the cluster has no room for the run.
    """
    scale = session.run.scale
    cpus, gpus, off_decoders = room_for(scale)
    elastic = len(scale.sizes) > 1
    if cluster.nodes() > 1 and not is_remote(session.folder.uri):
        refuse_unshared(session.folder.path("run.json"))
    feeds = feeds or feed([session.train, session.val], mode=session.run.data.feed, wait=elastic or cluster.nodes() > 1)
    board = new_board()
    # Ray Train's own files; ours are in the run's folder
    notes = tempfile.TemporaryDirectory(prefix="posture-ray-")
    trainer = TorchTrainer(
        _work,
        train_loop_config=dict(
            run=session.run, classes=session.classes, folder=session.folder, board=board, feeds=feeds
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
            label_selector=off_decoders or None,
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{time.time_ns()}",
            storage_path=notes.name,
            failure_config=ray.train.FailureConfig(
                max_failures=MAX_ELASTIC_FAILURES if elastic else MAX_FAILURES, controller_failure_limit=3
            ),
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=600),
    )
    done: dict[str, Any] = {}
    fitting = threading.Thread(target=_fit, args=(trainer, done), name="trainer", daemon=True)
    fitting.start()
    try:
        with notes:
            _watch(board, session.folder.name, fitting, asked_to_stop=asked_to_stop, **callbacks)
    except KeyboardInterrupt:
        atexit.register(_leave)  # runs before Ray's handler, which was registered earlier
        raise
    if error := done.get("error"):
        raise error
    posted = ray.get(board.read.remote())[session.folder.name]
    if refusal := posted.get("refused"):
        raise (Unreachable if posted["unreachable"] else InputError)(refusal)
    return posted["outcome"]


def room_for(scale: Scale) -> tuple[float, float, dict[str, str]]:
    """Return the CPUs and GPUs of each worker on the cluster that `cluster.connect` finds, and the label selector of
    their nodes.

    Raises InputError, with the numbers, if they do not fit.
    """
    cluster.connect()
    elastic = len(scale.sizes) > 1
    if cluster.is_alone():
        refuse_crowd(scale, nodes=cluster.sizes())
    cpus, gpus = resources(scale, nodes=cluster.sizes(), reading=0.0 if elastic or cluster.decoding() else READER_CPUS)
    off_decoders = {} if gpus else cluster.off_decoders()
    # for a range of workers Ray Train counts all CPUs, also those of nodes that only decode
    if elastic and off_decoders:
        raise InputError(
            f"scale.workers {list(scale.workers)}: on CPUs, a range of workers cannot be kept off the nodes with the "
            "resource `decode`; give one number of workers"
        )
    return cpus, gpus, off_decoders


def _work(config: dict[str, Any]) -> None:
    """Train as one Ray Train worker."""
    run: ActionRun = config["run"]
    folder: RunFolder = config["folder"]
    feeds: list[Feed] = config["feeds"]
    if not folder.exists():
        raise InputError(
            f"{folder.uri} cannot be seen from {ray.util.get_node_ip_address()}; --runs must be storage that all nodes "
            "share"
        )
    ctx = RayContext(folder, config["board"], clips_per_step=run.scale.global_batch)
    train, val = (item.open() for item in feeds)
    try:
        outcome = run_worker(run, config["classes"], folder, ctx, train=train, val=val)
        message: dict[str, Any] = {
            "outcome": {name: outcome[name] for name in ("epoch", "best", "best_epoch", "stopped", "note")}
        }
    except InputError as error:  # it is the same for all workers, so a restart would not help
        message = {"refused": str(error), "unreachable": isinstance(error, Unreachable)}
    if ctx.rank == 0:
        ray.get(config["board"].post.remote(folder.name, message))


def _fit(trainer: TorchTrainer, done: dict[str, Any]) -> None:
    try:
        trainer.fit()
    except Exception as error:
        done["error"] = error


def _leave() -> None:
    """End this process with the exit code of Ctrl-C. Ray's own shutdown would crash, because the trainer's thread still
    waits for Ray.

    Kill a Ray that was started for this process, with all its processes; a cluster is not among the children.
    """
    import psutil

    sys.stdout.flush()
    sys.stderr.flush()
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(130)


def _watch(
    board: Any,
    run: str,
    fitting: threading.Thread,
    *,
    on_progress: Callable[[dict[str, Any]], None],
    on_record: Callable[[dict[str, Any]], None],
    on_device: Callable[[str], None],
    asked_to_stop: Callable[[], bool],
) -> None:
    """Pass what rank 0 posts to the callbacks, until training ends."""
    place, epoch, asked = None, None, False
    while True:
        running = fitting.is_alive()
        update = ray.get(board.read.remote()).get(run, {})
        if "device" in update and (update["world_size"], update["device"]) != place:
            place = update["world_size"], update["device"]
            on_device(f"{place[0]} x {place[1]}" if place[0] > 1 else place[1])
        if (record := update.get("record")) and (record["epoch"], record.get("step")) != epoch:
            epoch = record["epoch"], record.get("step")
            on_record(record)
        if "steps" in update:
            on_progress(update)
        if asked_to_stop() and not asked:
            board.end.remote()
            asked = True
        if not running:
            return
        fitting.join(timeout=0.25)


def refuse_unshared(file: str) -> None:
    """Raise InputError naming the first node that does not see the local `file`."""
    sees = ray.remote(num_cpus=0)(lambda: exists(file))
    for node in ray.nodes():
        if node["Alive"] and not ray.get(
            sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        ):
            raise InputError(
                f"{file.rpartition('/')[0]} cannot be seen from node {node['NodeManagerAddress']}; on several nodes "
                "runs must be on s3:// or storage that all nodes share"
            )
