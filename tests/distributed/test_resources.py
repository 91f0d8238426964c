import re

import pytest

from posture.config import Scale
from posture.distributed.jobs import share_of_a_run
from posture.distributed.resources import refuse_crowd, resources, room
from posture.errors import InputError


@pytest.mark.parametrize(
    ("scale", "nodes", "expected"),
    [
        ({"workers": 1}, [(2, 0)], (1.0, 0.0)),
        ({"workers": 2}, [(2, 0)], (0.7, 0.0)),
        ({"workers": 2, "cpus_per_worker": 0.5}, [(2, 0)], (0.5, 0.0)),
        ({"workers": 4}, [(64, 4)], (15.0, 1.0)),
        ({"workers": 8}, [(64, 4)], (7.0, 0.0)),
        ({"workers": 2, "gpus_per_worker": 0}, [(8, 4)], (3.0, 0.0)),
        ({"workers": 1}, [(2, 0), (2, 0)], (2.0, 0.0)),  # what no single node has would be waited for in vain
        # workers with GPUs live where GPUs are
        ({"workers": 2}, [(8, 2), (64, 0)], (3.0, 1.0)),
        ({"workers": 3}, [(8, 1), (4, 2)], (2.0, 1.0)),
    ],
)
def test_shares_of_workers_leave_room_to_read(scale, nodes, expected):
    assert resources(Scale(global_batch=24, **scale), nodes=nodes) == expected


@pytest.mark.parametrize(
    ("workers", "nodes", "expected"),
    [
        ([1, 4], [(2, 0), (2, 0)], (1.0, 0.0)),
        ([1, 2], [(8, 0)], (3.0, 0.0)),
        ([1, 2], [(1, 0)], (0.5, 0.0)),
        ([2, 4], [(16, 2)], (7.0, 1.0)),
        ([2, 4], [(16, 2), (16, 1), (16, 8)], (8.0, 1.0)),
        ([2, 4], [(16, 1)], (3.0, 0.0)),
    ],
)
def test_of_a_range_of_workers_as_many_as_there_is_room_for_get_whole_cpus(workers, nodes, expected):
    assert resources(Scale(global_batch=24, workers=workers), nodes=nodes) == expected


def test_where_others_read_all_is_for_training():
    assert resources(Scale(workers=2), nodes=[(2, 0)], reading=0.0) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("scale", "nodes", "complaint"),
    [
        (
            {"workers": 4, "cpus_per_worker": 1},
            [(2, 0)],
            "scale.workers 4 x scale.cpus_per_worker 1 and 0.5 to read footage need 4.5 CPUs, the cluster has 2;",
        ),
        ({"workers": 4, "gpus_per_worker": 1}, [(16, 1)], "need 4 GPUs, the cluster has 1"),
        (
            {"workers": 32},
            [(2, 0)],
            "scale.workers 32 x scale.cpus_per_worker 0.1 and 0.5 to read footage need 3.7 CPUs, the cluster has 2",
        ),
        (
            {"workers": 2, "cpus_per_worker": 4},
            [(4, 2), (64, 0)],
            "4 and 0.5 to read footage need 8.5 CPUs, the cluster has 4 with GPUs",
        ),
        (
            {"workers": 1},
            [],
            "the cluster has 0 nodes to train on: all that have CPUs have the resource `decode` and no GPU",
        ),
    ],
)
def test_workers_that_fit_nowhere_are_refused_with_the_numbers(scale, nodes, complaint):
    with pytest.raises(InputError, match=complaint):
        resources(Scale(**scale), nodes=nodes)


@pytest.mark.parametrize(
    ("scale", "nodes", "complaint"),
    [
        (
            {"workers": 8},
            [(2, 0)],
            "8 workers: this machine has 2 CPUs, and more workers than that only wait for each other; use at most 2, "
            "or a cluster",
        ),
        ({"workers": 2}, [(1, 0)], "2 workers: this machine has 1 CPU, .*; use at most 1,"),
        ({"workers": 9}, [(4, 8)], "9 workers: this machine has 4 CPUs and 8 GPUs, .*; use at most 8,"),
        ({"workers": [4, 8]}, [(2, 0)], "4 workers"),
        ({"workers": 2}, [(2, 0)], ""),
        ({"workers": [2, 8]}, [(2, 0)], ""),
        ({"workers": 8}, [(4, 8)], ""),
        ({"workers": 8, "cpus_per_worker": 0.2}, [(2, 0)], ""),
        ({"workers": 1}, [(0.5, 0)], ""),
    ],
)
def test_one_machine_is_not_crowded_with_workers_unless_they_are_told_to_share(scale, nodes, complaint):
    try:
        refuse_crowd(Scale(global_batch=2520, **scale), nodes=nodes)
        said = ""
    except InputError as error:
        said = str(error)
    assert re.match(complaint, said) and bool(said) == bool(complaint), said


@pytest.mark.parametrize(
    ("scale", "concurrent", "nodes", "expected"),
    [
        ({}, None, [(2, 0)], (1, {"CPU": 1.0}, 2)),
        ({}, 2, [(2, 0)], (2, {"CPU": 0.7}, 1)),
        ({}, None, [(16, 0)], (10, {"CPU": 1.0}, 2)),
        ({}, 3, [(16, 0)], (3, {"CPU": 5.0}, 5)),
        ({}, 2, [(1, 0), (1, 0)], (2, {"CPU": 0.7}, 1)),
        ({}, 1, [(2, 0), (2, 0)], (1, {"CPU": 2.0}, 2)),
        ({}, None, [(16, 4)], (4, {"CPU": 3.0, "GPU": 1.0}, 4)),
        ({}, 8, [(16, 4)], (8, {"CPU": 1.0, "GPU": 0.5}, 2)),
        ({"cpus_per_worker": 2}, 2, [(8, 0)], (2, {"CPU": 2.0}, 4)),
    ],
)
def test_trials_on_one_device_get_what_fits(scale, concurrent, nodes, expected):
    found = room(Scale(**scale), concurrent=concurrent, trials=10, nodes=nodes)
    assert (found.concurrent, found.trial, found.threads) == expected


@pytest.mark.parametrize(
    ("workers", "nodes", "expected"),
    [
        (2, [(2, 0)], (1, 0.7, 0.0)),
        (2, [(16, 0)], (1, 7.0, 0.0)),
        (2, [(16, 4)], (2, 3.0, 1.0)),
        (4, [(8, 2), (8, 2)], (1, 3.0, 1.0)),
    ],
)
def test_trials_on_several_workers_leave_room_to_read_and_to_wait(workers, nodes, expected):
    found = room(Scale(workers=workers), concurrent=None, trials=10, nodes=nodes)
    assert (found.concurrent, found.cpus_per_worker, found.gpus_per_worker) == expected and found.trial == {"CPU": 0.1}
    total = found.concurrent * (workers * found.cpus_per_worker + 0.1)
    assert total + 0.5 <= sum(cpus for cpus, _ in nodes)


def test_no_more_at_a_time_than_trials_are_missing():
    assert room(Scale(), concurrent=None, trials=3, nodes=[(64, 0)]).concurrent == 3


@pytest.mark.parametrize(
    ("scale", "concurrent", "nodes", "complaint"),
    [
        (
            {},
            4,
            [(2, 0)],
            "4 trials at a time, with 0.5 CPUs each and 0.5 to read footage, need 2.5 CPUs, the cluster has 2; use "
            "fewer",
        ),
        (
            {"workers": 32},
            None,
            [(2, 0)],
            "1 trial at a time of 32 workers, with 0.2 CPUs each, 0.1 for the trials themselves and 0.5 to read "
            "footage, need 7 C",
        ),
        (
            {"cpus_per_worker": 3},
            1,
            [(2, 0), (2, 0)],
            "with 3 CPUs each and 0.5 to read footage, need 3.5 CPUs, the cluster has 4 on 2 nodes",
        ),
        ({"gpus_per_worker": 1}, 3, [(16, 2)], "3 devices at a time need 3 GPUs, the cluster has 2"),
    ],
)
def test_the_impossible_is_refused_with_the_numbers(scale, concurrent, nodes, complaint):
    with pytest.raises(InputError, match=complaint):
        room(Scale(**scale), concurrent=concurrent, trials=10, nodes=nodes)


@pytest.mark.parametrize(
    ("concurrent", "jobs", "nodes", "expected"),
    [
        (None, 5, [(2, 0)], (1.0, 0.0)),
        (1, 5, [(2, 0), (2, 0)], (2.0, 0.0)),
        (None, 1, [(8, 0), (4, 0)], (8.0, 0.0)),
        (None, 5, [(8, 2), (16, 0)], (4.0, 1.0)),
    ],
)
def test_a_run_of_a_study_gets_no_more_than_a_node_has(concurrent, jobs, nodes, expected):
    assert share_of_a_run(concurrent, jobs=jobs, nodes=nodes) == expected
