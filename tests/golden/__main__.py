"""Write the golden numbers anew: `python -m tests.golden`, for a change that is meant to move them. Say why in the
commit.
"""

import json

import torch

from tests.golden.small_runs import NUMBERS, RUNS, train_and_judge

if __name__ == "__main__":
    torch.set_num_threads(1)
    numbers = {name: train_and_judge(name) for name in RUNS}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
