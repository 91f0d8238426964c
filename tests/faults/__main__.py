"""Rounds of random faults: `python -m tests.faults --rounds 20 --seed 0` prints a line for each, and fails if one of
them did.
"""

from __future__ import annotations

import argparse
import sys

from posture.display import console
from tests.faults.rounds import Round, play
from tests.faults.site import Place, Site

COLUMNS = ("round", "fault", "moment", "recovered by", "rows lost", "epochs repeated", "metrics differ by", "seconds")


def cells(line: Round) -> tuple:
    return (
        line.number,
        line.fault,
        line.moment,
        line.recovered,
        line.rows_lost,
        line.epochs_repeated,
        f"{line.difference:.1e}",
        f"{line.seconds:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    options = parser.parse_args()
    lines = []
    with Site() as site:
        calm = Place(str(site.folder / "calm"))
        site.whole_way(calm)
        for number in range(options.first, options.first + options.rounds):
            line = play(site, calm, seed=options.seed, number=number)
            lines.append(line)
            print(" | ".join(map(str, cells(line))), "" if line.good else f"FAILED {line.error}", flush=True)
    console.table(*COLUMNS, rows=[cells(line) for line in lines])
    sys.exit(not all(line.good for line in lines))


if __name__ == "__main__":
    main()
