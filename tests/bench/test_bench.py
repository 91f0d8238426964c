from posture.bench import facts, ratio


def test_ratios_are_taken_round_by_round():
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_what_was_measured_is_said():
    assert facts(clips=3, plain_processes=2) == "clips 3, plain processes 2"
