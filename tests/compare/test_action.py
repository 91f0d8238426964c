"""Compared models: what is averaged, what is said, and a page that shows what was not measured."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posture.compare.action import SeedResult, analyse, rows_for_console, write_page
from posture.compare.analysis import flow_notes, optimizer_notes, write_json
from posture.compare.page import losses, ratio
from posture.compare.results import Comparison, Entry
from posture.compare.verdict import probability
from posture.display.text import signed
from posture.errors import InputError
from posture.runs import statistics
from tests.support.figures.comparison import (
    CLASSES,
    FACTS,
    GROUPS,
    LABELS,
    SEGMENTS,
    entry,
    first_right,
    scored,
    seed_result,
)
from tests.support.html_pages import HOSTILE, Page, assert_self_contained


def comparison(*entries: Entry, subject: str = "improved", **given: Any) -> Comparison:
    values: dict[str, Any] = {"groups": GROUPS, "classes": CLASSES, "facts": {"majority_accuracy": 1 / 3}} | given
    return Comparison("study", list(entries), subject, **values)


def analysed(*entries: Entry, **given: Any) -> dict[str, Any]:
    return analyse(comparison(*entries), resamples=4000, **given)


def named(analysis: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in analysis["entries"] if row["name"] == name)


IMPROVED = entry("improved", "ours", scored(first_right(10)), scored(first_right(11)), scored(first_right(12)))
C3D = entry(
    "c3d",
    "baseline",
    scored(first_right(4)),
    scored(first_right(5)),
    scored(first_right(6)),
    parameters=78_010_000,
    gmacs=38.55,
)
EQUAL = entry("two_stream", "baseline", scored(first_right(11)), scored(first_right(11)), scored(first_right(11)))
BETTER = entry("r3d_18", "reference", *[scored(first_right(12))] * 3)
ABSENT = entry(
    "mc3_18", "reference", not_measured="no GPU was at hand.", latency_ms=None, clips_per_second=None, lr_search=[]
)


def test_mean_and_spread_are_over_seeds() -> None:
    spread = named(analysed(IMPROVED, C3D), "improved")["metrics"]["accuracy"]
    assert spread["mean"] == pytest.approx(11 / 12) and spread["deviation"] == pytest.approx(1 / 12)
    assert spread["values"] == pytest.approx((10 / 12, 11 / 12, 1))
    assert named(analysed(IMPROVED, C3D), "c3d")["per_class"] == pytest.approx(dict.fromkeys(CLASSES, 5 / 12))


def test_figures_are_averaged_over_seeds_and_differences_are_those_of_the_means_that_are_shown() -> None:
    # One confident seed would outvote two doubtful ones: each alone scores 12, 4 and 4 of a class's 12 segments,
    # together all 12.
    ours = entry(
        "improved", "ours", scored(first_right(12), 0.98), scored(first_right(4), 0.4), scored(first_right(4), 0.4)
    )
    theirs = entry("c3d", "baseline", *[scored(first_right(6))] * 3)
    analysis = analysed(ours, theirs)
    row = named(analysis, "c3d")
    assert row["against"]["accuracy"]["difference"] == pytest.approx((12 + 4 + 4) / 36 - 6 / 12) and row["compared"][
        "accuracy"
    ] == pytest.approx(0.5)
    assert row["against"]["mcnemar"] == {"ours_only": 18, "theirs_only": 0, "p": pytest.approx(2 / 2**18)}, (
        "this alone is of averaged scores, and says so"
    )
    for figure in ("accuracy", "map", "auc"):
        means = [named(analysis, name)["metrics"][figure]["mean"] for name in ("improved", "c3d")]
        assert row["against"][figure]["difference"] == pytest.approx(means[0] - means[1])
        assert [named(analysis, name)["compared"][figure] for name in ("improved", "c3d")] == pytest.approx(means)


def test_the_test_is_the_bootstrap_over_groups() -> None:
    ours, theirs = (entry(one.name, one.kind, results=one.results[:1]) for one in (IMPROVED, C3D))
    against = named(analysed(ours, theirs), "c3d")["against"]
    expected = statistics.cluster_bootstrap(
        *(one.results[0].scores for one in (ours, theirs)),
        LABELS,
        [GROUPS[segment] for segment in SEGMENTS],
        resamples=4000,
    )
    for figure, one in expected.items():
        assert [against[figure][key] for key in ("difference", "low", "high", "p")] == [
            one.difference,
            one.low,
            one.high,
            one.p,
        ]


def test_the_order_of_segments_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(36)
    shuffled = SeedResult(
        0,
        "runs/0",
        [],
        C3D.results[0].metrics,
        [SEGMENTS[place] for place in order],
        LABELS[order],
        C3D.results[0].scores[order],
    )
    rows = [
        named(analysed(IMPROVED, entry("c3d", "baseline", results=[result])), "c3d")
        for result in (C3D.results[0], shuffled)
    ]
    assert rows[0]["against"] == rows[1]["against"]


@pytest.mark.parametrize("change", ["fewer", "relabelled"])
def test_runs_scored_on_other_segments_are_refused(change: str) -> None:
    one = seed_result(scored(first_right(5)), 7)
    if change == "fewer":
        one.segments, one.labels, one.scores = one.segments[1:], one.labels[1:], one.scores[1:]
    else:
        one.labels = (one.labels + 1) % 3
    with pytest.raises(InputError, match=r"^runs/7: scored on other test segments"):
        analysed(IMPROVED, entry("c3d", "baseline", results=[one]))


def test_a_segment_without_a_group_is_refused() -> None:
    with pytest.raises(InputError, match="no group is known for 1 of 36 test segments, such as segment35"):
        analyse(
            comparison(
                IMPROVED, groups={segment: group for segment, group in GROUPS.items() if segment != "segment35"}
            ),
            resamples=10,
        )


def test_the_subject_is_one_of_different_entries() -> None:
    with pytest.raises(ValueError, match="'c3d' must be one of"):
        analyse(comparison(IMPROVED, subject="c3d"))
    with pytest.raises(ValueError, match="different names"):
        analyse(comparison(IMPROVED, IMPROVED))


def test_holm_goes_over_the_models_of_one_kind() -> None:
    half = entry("spatial", "baseline", scored(first_right(9)))
    analysis = analysed(IMPROVED, C3D, half, entry("a1", "ablation", scored(first_right(8))), BETTER)
    for figure in ("accuracy", "map"):
        against = {name: named(analysis, name)["against"][figure] for name in ("c3d", "spatial", "a1", "r3d_18")}
        adjusted = statistics.holm({name: against[name]["p"] for name in ("c3d", "spatial")})
        assert {name: against[name]["p_holm"] for name in adjusted} == adjusted
        assert all(against[name]["p_holm"] == against[name]["p"] for name in ("a1", "r3d_18"))


def test_the_verdict_says_above_below_undecided_and_not_measured() -> None:
    weak = entry("improved", "ours", scored(first_right(8)))
    sentences = analysed(weak, C3D, entry("near", "baseline", scored(first_right(8), 0.7)), BETTER, ABSENT)["verdict"]
    assert sentences[0].replace("\u202f", " ") == (
        "IMPROVED recognised 66.7 % of 36 test segments (one seed); "
        "always predicting the most frequent class would score 33.3 %."
    )
    assert sentences[1].startswith("It is more accurate than C3D (+25.0 points, 95")
    assert sentences[2].startswith("It is less accurate than R3D_18 (−33.3 points, 95")
    assert sentences[3].startswith(
        "It does not differ significantly in accuracy from NEAR (0.0 points, 95"
    ) and sentences[3].endswith("p = 1.00).")
    assert sentences[4:] == ["Not measured: MC3_18."]


def test_where_groups_are_too_few_for_any_p_the_verdict_says_so() -> None:
    few = {segment: f"group{number % 4}" for number, segment in enumerate(SEGMENTS)}
    half = entry("spatial", "baseline", scored(first_right(9)))
    perfect = [
        entry("improved", "ours", *[scored(first_right(12))] * 3),
        entry("c3d", "baseline", scored(first_right(0))),
        half,
    ]
    analysis = analyse(
        comparison(*perfect, entry("a1", "ablation", scored(first_right(0))), groups=few), resamples=10_000
    )
    assert analysis["least_p"] == {"baseline": statistics.least_p(4, comparisons=2), "ablation": statistics.least_p(4)}
    # worse in every group, and still
    assert named(analysis, "c3d")["against"]["accuracy"]["p_holm"] == analysis["least_p"]["baseline"] > 0.05
    assert (
        "With 4 groups of test segments and 10,000 resamples, the adjusted p cannot fall below 0.10 for the "
        "2 baselines: their differences cannot be significant, however large."
    ) in analysis["verdict"]
    assert not any(
        "cannot fall" in sentence for sentence in analyse(comparison(*perfect), resamples=10_000)["verdict"]
    )  # twelve groups


def test_an_ablated_part_that_does_not_help_is_said_so() -> None:
    def ablated(name: str, right: np.ndarray) -> Entry:
        return entry(name, "ablation", *[scored(right)] * 3)

    said = analysed(
        IMPROVED,
        ablated("helps", first_right(4)),
        ablated("idle", first_right(11)),
        ablated("better", first_right(12)),
        BETTER,
        ablated("slight", first_right(11) & (np.arange(36) != 0)),
        entry("missing", "ablation", not_measured="diverged"),
    )["ablations"]
    assert set(said) == {"helps", "idle", "slight", "better"}
    assert "33.3 % without it, 91.7 % with it; the part helps on this footage (+58.3 points" in said["helps"].replace(
        "\u202f", " "
    )
    assert "the part does not help on this footage (0.0 points" in said["idle"]
    assert "the gain is not significant (+2.8 points" in said["slight"]
    assert "the part does not help on this footage (−8.3 points" in said["better"]
    weak = entry("improved", "ours", *[scored(first_right(5))] * 3)
    assert (
        "the part harms on this footage (−58.3 points"
        in analysed(weak, ablated("better", first_right(12)))["ablations"]["better"]
    )


def test_where_the_subject_is_not_measured_nothing_is_claimed() -> None:
    analysis = analysed(entry("improved", "ours", not_measured="it diverged"), C3D)
    assert analysis["verdict"] == ["IMPROVED was not measured: it diverged. There is nothing to compare."]
    assert named(analysis, "c3d")["against"] is None and named(analysis, "c3d")["metrics"]["accuracy"][
        "mean"
    ] == pytest.approx(5 / 12)


def test_the_analysis_is_plain_json(tmp_path: Path) -> None:
    diverged = entry(
        "c3d",
        "baseline",
        *[scored(first_right(4))] * 2,
        lr_search=[{"lr": 0.1, "val_loss": math.inf, "val_accuracy": None}],
    )
    analysis = analysed(IMPROVED, diverged, ABSENT)
    write_json(tmp_path / "new" / "comparison.json", analysis)
    read = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert read["entries"][1]["lr_search"] == [{"lr": 0.1, "val_loss": None, "val_accuracy": None}]
    assert (
        read["entries"][0]["metrics"]["accuracy"]["mean"] == pytest.approx(11 / 12)
        and read["verdict"] == analysis["verdict"]
    )


def test_console_rows() -> None:
    columns, rows = rows_for_console(analysed(IMPROVED, C3D, ABSENT))
    assert all(len(row) == len(columns) for row in rows)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert by_name["IMPROVED"]["accuracy"] == "91.7 ± 8.3" and by_name["IMPROVED"]["difference"] == ""
    assert (
        by_name["C3D"]["difference"] == "+50.0"
        and by_name["C3D"]["parameters"] == "78.01 M"
        and " to " in by_name["C3D"]["95 % CI"]
    )
    assert by_name["MC3_18"]["accuracy"] == "not measured" and by_name["MC3_18"]["clips/s"] == "-"


def page_of(
    tmp_path: Path,
    *entries: Entry,
    classes: tuple[str, ...] = CLASSES,
    facts: dict[str, Any] | None = None,
    **given: Any,
) -> Page:
    compared = comparison(*entries, classes=classes, facts=facts or {})
    write_page(tmp_path / "new" / "comparison.html", compared, analyse(compared, resamples=100, **given))
    return assert_self_contained((tmp_path / "new" / "comparison.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("ours", "said"), [(2.0, "2.0 times less than C3D"), (4.0, "that of C3D"), (6.0, "1.5 times that of C3D"), (0, "")]
)
def test_a_cost_is_compared_in_words(ours: float, said: str) -> None:
    assert ratio({"gmacs": ours}, {"gmacs": 4.0, "title": "C3D"}, "gmacs") == said


def test_a_full_page_holds_everything_given(tmp_path: Path) -> None:
    ablation = entry("a1", "ablation", *[scored(first_right(11))] * 3, title="A1 no residual")
    page = page_of(tmp_path, IMPROVED, C3D, EQUAL, BETTER, ABSENT, ablation, facts=FACTS)
    for words in ("5 of 6 models measured", "3 seeds each", "36 test segments in 12 groups", "3 May 2026, 14:05 UTC"):
        assert words in page.text, words
    for fact in (
        "3 epochs of 90 clips",
        "0, 1, 2",
        "two cores",
        "torch 2.15",
        "s3://bucket/store",
        "clips 4",
        "the middle",
        "Weather sunny",
        "1 h 1 min",
    ):
        assert fact in page.text, fact
    assert "38.55 78.01 M 41.7 ± 8.3 % +50.0" in page.text
    assert "IMPROVED 0.9" in page.text and "18.3 times less than C3D" in page.text
    assert "A1 no residual: 91.7 % without it, 91.7 % with it; the part does not help" in page.text
    assert "0.001: 0.912, 61.0 %" in page.text and "0.003: 0.743, 72.0 %" in page.text
    assert "61.2" in page.text and "17.1 to 21.9" in page.text
    assert "Points per hour Points per GMAC" in page.text
    assert (
        sum(value.startswith("line") and value.endswith("seed") for value in page.values("path", "class")) == 2 * 3 * 5
    )  # losses
    assert page.values("rect", "class").count("column1") == 2 and page.values("path", "class").count("whisker") == 8


def test_accuracy_is_shown_for_each_hour_of_training_and_each_gmac(tmp_path: Path) -> None:
    slow = entry("slow", "baseline", scored(first_right(6)), parameters=8_000_000, gmacs=4.0, device_hours=0.25)
    text = page_of(tmp_path, IMPROVED, slow, ABSENT).text
    assert "8.00 200.00 12.50" in text, "50 % in a quarter of an hour, or of 4 GMAC"
    assert re.search(r"3\.42 – 43\.57", text), "91.7 % of 2.104 GMAC, and no hours known"
    assert re.search(r"MC3_18 not measured not measured – 2\.10 3\.42 – –", text)


def test_what_was_not_measured_is_named_with_its_reason_and_not_with_a_figure(tmp_path: Path) -> None:
    page = page_of(tmp_path, IMPROVED, C3D, ABSENT, entry("a1", "ablation", not_measured="it diverged"))
    assert (
        "MC3_18 – 2.10 3.42 M not measured : no GPU was at hand" in page.text
        and "A1: not measured , it diverged." in page.text
    )
    assert page.text.count("not measured") >= 5  # both speeds, the ablation's bars and its row


def test_the_papers_figures_stand_in_a_column_of_their_own(tmp_path: Path) -> None:
    page = page_of(tmp_path, IMPROVED, C3D)
    assert "Printed in the paper" in page.text and "0.708 97.4 %" in page.text and "0.546 86.4 %" in page.text
    assert page.values("td", "class").count("number paper") == 4
    page = page_of(
        tmp_path, entry("mine", "ours", scored(first_right(9))), entry("improved", "ablation", scored(first_right(9)))
    )
    assert "Printed in the paper" not in page.text and "97.4" not in page.text


def test_the_page_says_where_the_subject_departs_from_the_paper(tmp_path: Path) -> None:
    facts = FACTS | {"departures": ["Optimiser: AdamW.", "Dropout <0.2>."]}
    page = page_of(tmp_path, IMPROVED, C3D, facts=facts)
    assert (
        "Differences between IMPROVED and the paper" in page.text
        and "Optimiser: AdamW." in page.text
        and "Dropout <0.2>." in page.text
    )
    assert "Differences between IMPROVED and the paper" not in page_of(tmp_path, IMPROVED, C3D, facts=FACTS).text


def test_names_are_escaped(tmp_path: Path) -> None:
    names = (HOSTILE, "jump", "throw")
    ours, theirs, part = (
        entry(name, kind, title=HOSTILE + name, results=[seed_result(scored(first_right(right)), 0, names)])
        for name, kind, right in (("improved", "ours", 9), ("c3d", "baseline", 5), ("a1", "ablation", 8))
    )
    compared = comparison(
        ours,
        theirs,
        part,
        entry("b", "reference", title=HOSTILE, not_measured=HOSTILE),
        classes=names,
        facts={HOSTILE: HOSTILE, "software": {HOSTILE: HOSTILE}, "footage": {HOSTILE: {HOSTILE: 1}}},
    )
    write_page(tmp_path / "page.html", compared, analyse(compared, resamples=50))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text and assert_self_contained(text).text.count("<script>alert('x')</script> & \"y\"") > 10


def test_one_model_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path, entry("improved", "ours", scored(first_right(9))))
    assert "75.0 %" in page.text and "Differences" not in page.text and "Ablations" not in page.text


def test_nothing_measured(tmp_path: Path) -> None:
    page = page_of(tmp_path, entry("improved", "ours", lr_search=[]))
    assert (
        "IMPROVED was not measured: no run of it finished" in page.text
        and "Curves" not in page.text
        and "earning rates" not in page.text
    )


def test_one_group_gives_no_interval(tmp_path: Path) -> None:
    compared = comparison(IMPROVED, C3D, groups=dict.fromkeys(SEGMENTS, "one"))
    analysis = analyse(compared, resamples=20)
    assert "too few groups for an interval" in " ".join(
        analysis["verdict"]
    ) and "does not differ significantly" in " ".join(analysis["verdict"])
    write_page(tmp_path / "page.html", compared, analysis)
    write_json(tmp_path / "page.json", analysis)


def cells(page_text: str, title: str) -> list[str]:
    """The numbers of a model's row in the table of all models."""
    row = re.search(rf'<th scope="row">{re.escape(title)}</th>(.*?)</tr>', page_text.replace("<wbr>", ""), re.DOTALL)[1]
    texts = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r'<td class="number">(.*?)</td>', row, re.DOTALL)]
    return [text.replace("\u202f%", "").replace("\u202fM", " M") for text in texts]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_terminal_and_the_page_show_the_same_numbers_and_the_difference_is_of_them(
    tmp_path: Path, seeds: int
) -> None:
    entries = [
        entry(one.name, one.kind, gmacs=one.gmacs, parameters=one.parameters, results=one.results[:seeds])
        for one in (IMPROVED, C3D, EQUAL, BETTER)
    ]
    compared = comparison(*entries)
    analysis = analyse(compared, resamples=500)
    write_page(tmp_path / "page.html", compared, analysis)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    columns, rows = rows_for_console(analysis)
    for shown in (dict(zip(columns, row, strict=True)) for row in rows[1:]):
        names = ("mAP", "GMAC", "parameters", "accuracy", "difference", "95 % CI", "p (Holm)")
        assert cells(text, shown["model"]) == [shown[name] for name in names]
        mine, theirs = (float(one["accuracy"].split()[0]) for one in (dict(zip(columns, rows[0], strict=True)), shown))
        assert float(shown["difference"].replace("\u2212", "-")) == pytest.approx(mine - theirs, abs=0.11)
    assert ("means over seeds" in text or "mean accuracy minus" in text) == (seeds > 1)


def test_milliseconds_of_a_network_that_reads_flow_have_it_in_them_and_say_so(tmp_path: Path) -> None:
    timed = entry("two_stream", "baseline", scored(first_right(5)), flow="dis", flow_ms=23.4)
    untimed = entry("temporal_stream", "baseline", scored(first_right(5)), flow="farneback", latency_ms=None)
    compared = comparison(IMPROVED, timed, untimed)
    analysis = analyse(compared, resamples=100)
    columns, rows = rows_for_console(analysis)
    assert [dict(zip(columns, row, strict=True))["ms"] for row in rows] == ["18.2", "41.6", "-"]
    notes = [note.replace("\u202f", " ") for note in flow_notes(analysis)]
    assert notes == [
        "TWO_STREAM: of its 41.6 ms per clip, optical flow (dis) takes 23.4; its compute is that of the network only.",
        "TEMPORAL_STREAM: its time does not include optical flow (farneback); its compute is that of the network only.",
    ]
    write_page(tmp_path / "page.html", compared, analysis)
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "41.6 40.5 to 45.3" in text and all(note in text for note in notes)


def test_losses_share_a_scale_where_they_are_one_loss_and_streams_are_drawn_as_their_mean(tmp_path: Path) -> None:
    plain, summed = (
        entry("improved", "ours", scored(first_right(9)), loss={"label_smoothing": 0.0}),
        entry("two_stream", "baseline", scored(first_right(9)), streams=2, loss={"label_smoothing": 0.0}),
    )
    alone, halved = losses([plain, summed], one_scale=True)
    assert [y for _, y in alone.lines[0].points] == pytest.approx([
        1.1,
        0.55,
        1.1 / 3,
    ]) and alone.y_ticks == halved.y_ticks
    assert [y for _, y in halved.lines[0].points] == pytest.approx([0.55, 0.275, 1.1 / 6]) and halved.lines[
        1
    ].points == alone.lines[1].points
    text = page_of(tmp_path, plain, summed).text
    assert (
        "all on one scale" in text
        and "TWO_STREAM: the training loss is the mean over its 2 streams" in text
        and "smoothing" not in text
    )
    text = page_of(
        tmp_path, plain, entry("c3d", "baseline", scored(first_right(9)), loss={"label_smoothing": 0.1})
    ).text
    assert "each model on its own scale" in text and "The training loss of C3D (0.1) includes label smoothing" in text


def test_learning_rates_say_how_long_each_was_tried_and_then_trained(tmp_path: Path) -> None:
    searched = entry("improved", "ours", scored(first_right(9)), budget="30 epochs", search_budget="10 epochs")
    timed = entry(
        "r3d_18",
        "reference",
        scored(first_right(9)),
        budget="120 steps",
        search_budget="40 steps",
        lr_search=[{"lr": 0.001, "val_loss": 0.9}],
    )
    text = page_of(tmp_path, searched, timed).text
    assert "IMPROVED not recorded 10 epochs 0.001: 0.912, 61.0 % 0.003: 0.743, 72.0 % 30 epochs" in text
    assert "R3D_18 not recorded 40 steps 0.001: 0.900, – 120 steps" in text


def test_each_model_says_its_optimiser(tmp_path: Path) -> None:
    sgd, adamw = "SGD, momentum 0.9, weight decay 0.0003", "AdamW, beta1 0.9, weight decay 0.05"
    entries = [
        entry("improved", "ours", scored(first_right(9)), optimizer=adamw, lr_search=[]),
        entry("c3d", "baseline", scored(first_right(9)), optimizer=sgd),
        entry("a1", "ablation", scored(first_right(9)), optimizer=adamw),
    ]
    text = page_of(tmp_path, *entries).text
    assert f"IMPROVED {adamw} none tried 0.003: the recipe's 3 epochs" in text and f"C3D {sgd}" in text
    assert optimizer_notes(analysed(*entries)) == [
        f"Optimiser of IMPROVED and A1: {adamw}.",
        f"Optimiser of C3D: {sgd}.",
    ]


def test_numbers_are_written_for_people() -> None:
    assert [signed(value) for value in (4.12, -4.16, 0.04, -0.04, 0.0)] == ["+4.1", "−4.2", "0.0", "0.0", "0.0"]
    assert [probability(p) for p in (None, 0.0001, 0.0123, 0.25)] == ["p unknown", "p < 0.001", "p = 0.012", "p = 0.25"]
