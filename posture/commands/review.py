"""`posture review`: what the champion is least sure of in unlabelled footage, as a table and as a page that takes
people's answers.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

from collections import Counter
from typing import Annotated

from cyclopts import App, Parameter

from posture.config import validate
from posture.data.store.tables import Store
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted
from posture.errors import InputError
from posture.retrain.registry import Registry
from posture.retrain.review.active_learning import find_stretches, most_informative, score_stretches
from posture.retrain.review.questions import Question, Review
from posture.retrain.review.server import ReviewServer

command = App(
    name="review", help_epilogue="Example: posture review --registry REGISTRY --store STORE --footage INBOX --count 50"
)


@command.default
def review(
    *,
    registry: str,
    store: str,
    footage: str,
    port: Annotated[int, between(0, 65535)] = 0,
    count: Annotated[int, between(1, 1000)] = 20,
    only_list: Annotated[bool, Parameter(name="--list")] = False,
) -> None:
    """Label footage that has no label: a page on this machine shows the clips that would teach the champion most, and
    takes your answers.

    Answers are written into review.csv beside the footage, where posture ingest and posture retrain find them.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry, whose champion suggests labels.
    store
        Folder or s3:// prefix of the store; what it holds is left out.
    footage
        Folder or s3:// prefix where new footage arrives.
    port
        Port of the page on 127.0.0.1; 0 takes a free one.
    count
        Number of clips to label.
    only_list
        Print the clips, and serve no page.
    """
    review_footage(registry, store, footage, port=port, count=count, only_list=only_list)
    console.suggest(
        "the same command without --list asks for labels"
        if only_list
        else f"posture retrain --footage {footage} --store {store} --registry {registry}"
    )


REFUSED_SHOWN = 10


def review_footage(registry_uri: str, store_uri: str, footage: str, *, port: int, count: int, only_list: bool) -> None:
    """Print the most informative stretches, then serve the page until Ctrl-C. Raises InputError where there is no
    champion, or nothing to ask about.
    """
    review = choose(registry_uri, store_uri, footage, count=count)
    console.table(
        "video",
        "from",
        "to",
        f"{review.champion} suggests",
        "probability",
        rows=[
            (
                question["video"],
                f"{question['start']:.1f}",
                f"{question['end']:.1f}",
                question["suggested"][0][0],
                f"{question['suggested'][0][1]:.3f}",
            )
            for question in review.describe()["questions"]
        ],
    )
    if only_list:
        return
    with ReviewServer(review, port=port) as server:
        console.out.print(f"label the clips at {server.url} (only from this machine); Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.out.print()
        finally:
            review.close()
    counts = review.counts()
    console.out.print(
        f"{counts['labelled']} labelled, {counts['not_usable']} not usable, {counts['skipped'] + counts['open']} left; "
        f"the answers are in {review.path}, and the next posture retrain takes them in"
    )


def choose(registry_uri: str, store_uri: str, footage: str, *, count: int) -> Review:
    """The `count` stretches of the footage whose labels would teach the champion most. Raises InputError where there
    are none.
    """
    registry = Registry(registry_uri)
    champion = registry.champion()
    if champion is None:
        raise InputError(
            f"{registry_uri}: there is no champion yet whose uncertainty could choose the clips; "
            "label some footage, and run posture retrain"
        )
    version = registry.version(champion)
    with console.progress("looking for unlabelled footage") as advance:
        found = find_stretches(footage, Store(store_uri), progress=advance)
    if not found.asked:
        raise InputError(
            f"{found.root}: no footage here needs a label ({counted(found.files, 'file')} without one, "
            f"{len(found.refused):,} of them cannot be used)"
        )
    run, classes = validate(version["run"]), tuple(version["classes"])
    with registry.checkpoint(champion) as checkpoint, console.progress("scoring clips") as advance:
        scored = score_stretches(found.asked, run, classes, checkpoint, progress=advance)
    refused = [*found.refused, *scored.refused]
    for item in refused[:REFUSED_SHOWN]:
        console.out.print(f"left out: {item['uri']}: {item['verdict']}, {item['reason']}")
    if len(refused) > REFUSED_SHOWN:
        verdicts = Counter(item["verdict"] for item in refused)
        console.out.print(
            f"left out in total: {', '.join(f'{verdict}: {number}' for verdict, number in verdicts.most_common())}"
        )
    chosen = most_informative(scored.probabilities, scored.features, count)
    if not chosen:
        raise InputError(f"{found.root}: none of {len(found.asked):,} clips without a label can be decoded")
    console.out.print(
        f"{counted(len(scored.asked), 'clip')} of {counted(found.files, 'file')} without a label; "
        f"{champion} would learn most from these {len(chosen)}:"
    )
    return Review(
        found.root,
        classes,
        [Question(scored.asked[place], scored.probabilities[place]) for place in chosen],
        champion=champion,
    )
