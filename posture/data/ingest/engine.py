"""The loop of every ingest: plan, hand jobs to workers, commit what they return, report."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from posture.data.decode.limits import DecodeLimits
from posture.data.decode.sandbox import Sandbox, sandbox_with
from posture.data.ingest.ledger import Ledger
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.errors import InputError, Unreadable

T = TypeVar("T")
Returned = tuple[list[Any], dict[str, Any] | None]
"""Results of a task, and the Parquet file it wrote: {path, bytes, rows}."""
Work = Callable[[list[Any]], Returned]
"""Function of a worker: takes a list of jobs."""
Spread = Callable[[Work, list[Any], int], Generator[Returned | InputError, None, None]]
"""Attempts the work on all jobs, in about that number of tasks, and yields what tasks return as they end."""
Progress = Callable[[int, int, int, float], None]
"""Called with (steps done, all steps, clips or images made, clips or images per second)."""


def here(work: Work, jobs: list[Any], tasks: int) -> Generator[Returned | InputError, None, None]:
    """Run the work in this process, one task after the other."""
    for block in blocks(jobs, tasks):
        yield attempt(work, block)


def attempt(work: Work, jobs: list[Any]) -> Returned | InputError:
    """Return what the work returns, or why it failed, without a traceback that would keep its files open."""
    try:
        return work(jobs)
    except InputError as error:
        return InputError(str(error))


def blocks(jobs: list[T], count: int) -> list[list[T]]:
    """Deal the jobs out to `count` tasks, none of them empty."""
    count = max(1, min(len(jobs), count))
    return [jobs[first::count] for first in range(count)]


def ingest(
    kind: type[Ledger],
    store: Store,
    options: Any,
    report: Any,
    source: Any,
    work: Callable[..., Returned],
    *,
    per_task: float,
    spread: Spread,
    progress: Progress | None,
) -> list[Any]:
    """Add what is new in `source` to the store and return the jobs that were done.

    `work` is called with a list of jobs and `store_uri`, `options` and the ledger's `for_work`. A task gets jobs of
    `per_task` segments or images in all. Raises Busy if another ingest holds the store.
    """
    began = time.time()
    with Lease(store.uri) as lease:
        store.create_tables()
        store.remove_orphans(kind.table)
        ledger = kind(store, options, report, lease)
        jobs = ledger.plan(source)
        if jobs:
            sent, steps = time.time(), sum(job.steps for job in jobs)
            work = functools.partial(work, store_uri=store.uri, options=options, **ledger.for_work)
            with closing(spread(work, jobs, round(sum(job.size for job in jobs) / per_task))) as returned:
                for task in returned:
                    if isinstance(task, InputError):
                        raise task
                    ledger.add(*task)
                    if progress:
                        progress(ledger.done, steps, ledger.made, ledger.made / (time.time() - sent))
            ledger.commit()
            ledger.spent = time.time() - sent
            store.remove_orphans(kind.table)
        ledger.finish(began)
    return jobs


@contextmanager
def own_sandbox(limits: DecodeLimits) -> Iterator[Sandbox]:
    """Give this process's decoder. It ends if the work is interrupted, since answers may be left in its socket."""
    sandbox = sandbox_with(limits)
    try:
        yield sandbox
    except BaseException:
        sandbox.close()
        raise


def twice(decode: Callable[[], T]) -> T:
    """Try again if the decoder died: it may not have been the file's fault."""
    try:
        return decode()
    except Unreadable as error:
        if error.verdict != "crashed":
            raise
        return decode()
