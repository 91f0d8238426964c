"""`posture show`: the content of a store, on the terminal and as a page."""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App

from posture.data.store import schema
from posture.data.store.tables import Store
from posture.display import console
from posture.display.ranges import between
from posture.display.text import duration, size
from posture.runs.recipes import load_recipe
from posture.runs.reports.store import on_two_sides, write_show_page
from posture.runs.reports.store_contents import contact_sheet, image_sheet, summarize, summarize_images

command = App(name="show", help_epilogue="Example: posture show STORE")


@command.default
def show(
    store: str,
    /,
    *,
    out: Path = Path("show.html"),
    recipe: str | None = None,
    clips: Annotated[int, between(0)] = 24,
    seed: int = 0,
) -> None:
    """Look into a store: clips and images as training sees them, class balance, splits and table versions, on the
    terminal and as an HTML page.

    Parameters
    ----------
    store
        Folder or s3:// prefix of the store.
    out
        File to write the page to.
    recipe
        Recipe whose augmentation is shown; by default jobs/action.py:improved and jobs/detector.py:improved.
    clips
        Maximum number of clips, and of images, on the page.
    seed
        Seed of the augmentation.
    """
    with console.waiting(f"reading {store}"):
        show_store(store, out=out, recipe=recipe, items=clips, seed=seed)
    console.suggest(f"posture train RECIPE --store {store}; posture models lists the recipes")


RECIPES = {"action": "jobs/action.py:improved", "detection": "jobs/detector.py:improved"}
"""Recipes whose augmentation is shown by default."""


def show_store(uri: str, *, out: Path, recipe: str | None, items: int, seed: int) -> None:
    """Write the page about the store at `uri` to `out`, and its figures to the terminal. Raises InputError.

    `recipe` augments clips or images, whichever it is for.
    """
    store = Store(uri)
    runs = {task: load_recipe(name) for task, name in RECIPES.items()}
    if recipe is not None:
        chosen = load_recipe(recipe)
        runs[chosen.task] = chosen
    summary, images = summarize(store), summarize_images(store)
    segments = sum(row["segments"] for row in summary["splits"])
    if images:
        images["sheet"] = image_sheet(store, runs["detection"], count=items, seed=seed)
    sheet = contact_sheet(store, runs["action"], clips=items, seed=seed) if segments or not images else []
    write_show_page(out, summary=summary, sheet=sheet, images=images)
    console.out.print(f"{store.uri}: {size(sum(table['bytes'] for table in summary['tables']))}")
    if segments:
        console.table("class", *schema.SPLITS, rows=[tuple(row.values()) for row in summary["classes"]])
        console.out.print()
        console.table(
            "split",
            "segments",
            "clips",
            "groups",
            "footage",
            rows=[
                (row["split"], row["segments"], row["clips"], row["groups"], duration(row["seconds"]))
                for row in summary["splits"]
            ],
        )
        console.out.print()
        if athletes := [tuple(row.values()) for row in summary["athletes"]]:
            console.table("athletes in a video", "videos", "segments", rows=athletes)
            console.out.print()
        if warning := on_two_sides(summary["on_two_sides"]):
            console.out.print(f"{warning}\n")
    if images:
        console.table("class of boxes", *schema.SPLITS, rows=[tuple(row.values()) for row in images["classes"]])
        console.out.print()
        console.table(
            "split",
            "images",
            "without a box",
            "boxes",
            "groups",
            rows=[tuple(row.values()) for row in images["splits"]],
        )
        console.out.print()
    console.table(
        "table",
        "version",
        "rows",
        "size",
        rows=[(row["name"], row["version"], row["rows"], size(row["bytes"])) for row in summary["tables"]],
    )
    console.out.print(f"\n{out.resolve()}")
