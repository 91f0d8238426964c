"""The command line: `posture COMMAND`, or `python -m posture COMMAND` on a cluster.

A command is a file in `posture/commands/`, which is imported when it is called: `posture --help` imports none.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter

from posture import __version__
from posture.display import console
from posture.errors import InputError

COMMANDS = {
    "Footage": {
        "ingest": "Decode footage, or images with boxes, into a store.",
        "show": "Look into a store: clips and images as training sees them, classes, splits.",
        "generate": "Generate footage of moving athletes, and images with boxes.",
        "forget": "Remove a video, and everything made from it, from a store.",
    },
    "Training": {
        "train": "Train a recipe on a store.",
        "evaluate": "Score a run on footage that it was not trained on.",
        "explain": "Show where and when a run looks in a video.",
        "runs": "List runs: state, recipe, footage, results.",
        "models": "List the models with their parameters and operations.",
    },
    "Predicting": {"predict": "Say who does what and when in new videos."},
    "Comparing": {"compare": "Train several models on one budget, and compare them."},
    "Searching": {
        "tune": "Search for the best changes to a recipe.",
        "sweep": "Write a search space as files for W&B sweeps.",
    },
    "Retraining": {
        "retrain": "Take in new footage, train a challenger, and promote it if it is better.",
        "watch": "Retrain on a schedule.",
        "status": "Show the champion, the last passes and the next one.",
        "review": "Label the clips that would teach the champion most.",
        "registry": "List, show, compare, promote and roll back versions.",
    },
    "More": {"demo": "Go from footage to a report in a few minutes.", "bench": "Measure Posture beside other tools."},
}
"""The list that `posture --help` shows."""


def shown_default(value: Any) -> str | None:
    """Return how help shows a default; None for flags and for options that are empty unless given."""
    if value is None or value is False or value == ():
        return None
    return f"{value:,.12g}" if isinstance(value, float) else str(value)


app = App(
    name="posture",
    version=__version__,
    help="Train models of sports actions, and detectors of athletes, on one machine or a Ray cluster.",
    help_format="markdown",
    group_commands=Group("Options", sort_key=len(COMMANDS)),
    default_parameter=Parameter(negative=(), show_default=shown_default),
)
for place, (title, commands) in enumerate(COMMANDS.items()):
    group = Group(title, sort_key=place)
    for number, (name, line) in enumerate(commands.items()):
        app.command(f"posture.commands.{name}:command", name=name, help=line, group=group, sort_key=number)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit with code 2 and one sentence for what the user can mend, with 130 for Ctrl-C and for SIGTERM,
    which schedulers send.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with console.waiting("loading"):
            describe(arguments)
            app(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, InputError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nposture: interrupted", file=sys.stderr)
        sys.exit(130)


def describe(arguments: list[str] | None) -> None:
    """Let the help of the command that is called show its docstring in place of its line in the list."""
    names, commands, _ = app.parse_commands(arguments)
    for name, command in zip(names, commands[1:], strict=True):
        if command.default_command and not name.startswith("-"):
            command.help = None


def fail(message: str) -> None:
    """Print what is wrong, and exit with code 2."""
    print(f"posture: {console.visible(message)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
