"""This process as a context: signals, folder, device."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from posture.train.context import LocalContext
from posture.train.publish import checkpoint_tag
from tests.support.small_run import DiskFolder


def wait_for(ctx: LocalContext) -> None:
    """Python runs a signal's handler between two instructions of the main thread."""
    for _ in range(100):
        if ctx.should_stop():
            return
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), LocalContext(device="cpu") as ctx:
        assert not ctx.should_stop()
        os.kill(os.getpid(), number)
        wait_for(ctx)
        assert ctx.should_stop()
        os.kill(os.getpid(), number)
        time.sleep(1.0)
    assert signal.getsignal(number) is before


def test_other_threads_leave_signals_alone() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with LocalContext(device="cpu"):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]


def test_it_is_the_only_worker() -> None:
    ctx, model = LocalContext(device="cpu"), torch.nn.Linear(2, 2)
    summed = ctx.sum([1, 2.5])
    assert summed.dtype == np.float64 and summed.tolist() == [1, 2.5]
    assert (
        ctx.wrap(model) is model
        and ctx.broadcast({"stop": True}) == {"stop": True}
        and (ctx.rank, ctx.world_size) == (0, 1)
    )


def test_the_device_is_named() -> None:
    threads = torch.get_num_threads()
    assert LocalContext(device="cpu").device_name == f"cpu ({threads} thread{'s' * (threads != 1)})"
    assert LocalContext().device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_report_publishes_the_checkpoint_and_its_history(folder: DiskFolder) -> None:
    ctx, folders = LocalContext(folder, device="cpu"), []

    def save(directory: Path) -> None:
        folders.append(directory)
        (directory / "state.json").write_text('{"history": [{"epoch": 1}]}')

    ctx.report({"epoch": 1}, save, best=True)
    ctx.report({"epoch": 2, "step": 12}, save, best=False)
    ctx.report({"epoch": 3}, None, best=True)
    assert folder.tags == {"best": "epoch-0001", "last": "epoch-0002-step-000012"}
    assert (folder.last / "state.json").exists() and (folder.path / "history.json").read_text() == '[{"epoch": 1}]'
    assert not any(directory.exists() for directory in folders)


def test_tags_sort_by_time() -> None:
    positions = [{"epoch": 1, "step": 5}, {"epoch": 2, "step": 7}, {"epoch": 2, "step": 11}, {"epoch": 12}]
    tags = [checkpoint_tag(position) for position in positions]
    assert tags == sorted(tags) and len(set(tags)) == 4
