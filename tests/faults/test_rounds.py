"""A few rounds of random faults, others every day; `python -m tests.faults` plays as many as one likes."""

import time

import pytest

from tests.faults.rounds import FAULTS, draw, play

ROUNDS = 2


def test_every_kind_of_fault_comes_in_turn_and_comes_again_with_its_seed():
    assert {draw(3, number).kind for number in range(len(FAULTS))} == set(FAULTS)
    assert (
        [draw(3, number) for number in range(9)]
        == [draw(3, number) for number in range(9)]
        != [draw(4, number) for number in range(9)]
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_rounds_end_as_if_nothing_had_happened(site, calm):
    seed = int(time.time() // 86400)
    print(f"seed {seed}; again with: python -m tests.faults --rounds {ROUNDS} --seed {seed}")
    lines = [play(site, calm.place, seed=seed, number=number) for number in range(ROUNDS)]
    assert all(line.good for line in lines), (seed, lines)
