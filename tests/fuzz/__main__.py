"""Broken footage: `python -m tests.fuzz --videos 1000 --images 500 --labels 200 --seed 0` plays so many files, and
fails if one of them does harm.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz.rounds import BATCH, PLAY, Outcome, play_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in ("videos", "images", "labels"):
        parser.add_argument(f"--{kind}", type=int, default=0)
        parser.add_argument(f"--first-{kind}", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=datetime.date.today().toordinal(), help="today's if left out")
    options = parser.parse_args()
    if options.images or options.labels:
        from posture.distributed import cluster

        cluster.connect(num_cpus=2, object_store_memory=200_000_000)
    failed = False
    with tempfile.TemporaryDirectory() as place:
        for kind in ("videos", "images", "labels"):
            count, size, total = getattr(options, kind), 1 if kind == "labels" else BATCH, Outcome()
            for number in range(
                getattr(options, f"first_{kind}"), getattr(options, f"first_{kind}") + -(-count // size)
            ):
                folder = Path(place, kind, str(number))
                play = play_labels if kind == "labels" else PLAY[kind]
                outcome = play(folder, seed=options.seed, number=number)
                shutil.rmtree(folder)
                total += outcome
                for line in outcome.wrong:
                    print("WRONG", line, flush=True)
            if count:
                print(
                    f"{count} {kind}, seed {options.seed}: {dict(total.verdicts.most_common())}; {len(total.wrong)} "
                    "wrong",
                    flush=True,
                )
            failed = failed or bool(total.wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
