"""One pass of retraining: ingest what is new, train a challenger, compare it with the champion, and promote it or not.

A pass is idempotent: if nothing is new, it ends in seconds and changes nothing. Its plan is written first
(`current.json` in the registry), so that the next pass finishes one that was killed: the challenger's name depends on
all its inputs, it resumes from its last checkpoint, a version is added once, and the pointer to the champion changes
last. One pass at a time holds the registry's lease.

The steps: `take_in` (intake.py) -> `plan`: is it enough, and of which versions of the tables -> `train` (challenger.py)
-> `judge` (decision.py) -> `conclude`: version, decision, pointer.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportOptionalSubscript=false

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posture.config import ActionRun, override, validate
from posture.data.feed.origins import places_of
from posture.data.store.files import absolute, exists, remove_tree
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.display.text import counted, duration
from posture.errors import Busy, InputError, Unreachable
from posture.retrain.challenger import digest_of_wish, fit, name_of
from posture.retrain.decision import Answers, DecisionLimits, judge
from posture.retrain.holdout import Model, ask, figures, write_predictions
from posture.retrain.intake import InboxOptions, Intake, Progress, look_for, refuse_uncuttable, silent, take_in
from posture.retrain.new_data import arrivals, segments_record
from posture.retrain.notify import Notification, notify
from posture.retrain.registry import WEIGHTS, Registry
from posture.runs.backend import Backend
from posture.runs.folder import RunFolder, RunRecord
from posture.runs.prepare import prepare, software
from posture.runs.recipes import load_recipe

FORMAT = 1
"""Format of decision.json."""


@dataclass(frozen=True)
class RetrainOptions:
    """Options of `posture retrain`."""

    footage: str
    store: str
    registry: str
    recipe: str = "jobs/action.py:improved"
    changes: dict[str, Any] = field(default_factory=dict)
    """Changes of the recipe by dotted path."""
    backend: Backend = field(kw_only=True)
    """Where to decode, train and score."""
    runs: str | None = None
    """Folder or s3:// prefix of the challengers' runs; None: in the registry."""
    layout: str | None = None
    split_number: int = 1
    settle: float = 300.0
    min_clips: int = 20
    """Least number of new training clips for a challenger."""
    min_per_class: int = 8
    """Least number of training clips of a new class; with fewer it is left out for now."""
    from_scratch: bool = False
    """Start from random weights instead of the champion's."""
    force: bool = False
    """Train a challenger even if too little is new."""
    val_share: float = 0.2
    test_share: float = 0.2
    seed: int = 0
    limits: DecisionLimits = DecisionLimits()
    notification: Notification = Notification()

    @property
    def inbox(self) -> InboxOptions:
        return InboxOptions(
            self.footage, self.layout, self.split_number, self.settle, self.val_share, self.test_share, self.seed
        )


@dataclass
class PassResult:
    """Result of a pass."""

    status: str
    """promoted, refused or failed if a challenger was judged; waiting if too little is new; nothing if nothing is
    new.
    """
    sentence: str
    pass_id: str | None
    decision: dict[str, Any] | None
    look: dict[str, Any]
    """Content of the registry's last.json."""


Tell = Callable[[str], None]


def run_pass(options: RetrainOptions, *, tell: Tell = lambda _: None, progress: Progress = silent) -> PassResult:
    """Run one pass; `tell` gets a line per step.

    Raises Busy if another pass is running, InputError, and KeyboardInterrupt at Ctrl-C, after training has saved a
    checkpoint, from which the next pass resumes.
    """
    run = override(load_recipe(options.recipe), options.changes)
    if not isinstance(run, ActionRun):
        raise InputError(
            f"{options.recipe} trains a detector; posture retrain is for action classifiers, such as "
            "jobs/action.py:improved"
        )
    look_for(options.footage)
    registry = Registry(options.registry, create=True)
    if not exists(registry.uri):
        refuse_uncuttable(options.inbox, Store(options.store, create=True), run)
    with registry.lease() as lease:
        return Pass(options, run, registry, lease, tell, progress).go()


class Pass:
    """A running pass, which holds the registry's lease."""

    def __init__(
        self, options: RetrainOptions, run: ActionRun, registry: Registry, lease: Lease, tell: Tell, progress: Progress
    ) -> None:
        self.options, self.run, self.registry, self.lease, self.tell, self.progress = (
            options,
            run,
            registry,
            lease,
            tell,
            progress,
        )
        self.store = Store(options.store, create=True)
        self.champion = registry.champion()
        self.wish = digest_of_wish(run, store=self.store.uri, from_scratch=options.from_scratch)

    def go(self) -> PassResult:
        plan = self._unfinished()
        if plan is None:
            found = self._take_in()
            plan = self._plan(found)
            if isinstance(plan, PassResult):
                return plan
        decided = self.registry.read_json("passes", plan["pass"], "decision.json")
        if decided is None:
            failure = self._train(plan)
            decided = self._failed(plan, failure) if failure else self._judge(plan)
        return self._conclude(plan, decided)

    # What is new

    def _take_in(self) -> Intake:
        self.tell(f"looking for new footage in {self.options.footage}")
        found = take_in(
            self.options.inbox,
            self.store,
            self.run,
            self.registry.read_json("settling.json") or {},
            backend=self.options.backend,
            progress=self.progress,
        )
        self.lease.check()
        self.registry.write_json(found.memory, "settling.json")
        for report in found.reports:
            self.tell(
                f"ingested {counted(report.decoded, 'file')}, {counted(report.segments, 'segment')}, "
                f"{counted(report.clips, 'clip')}; "
                f"{len(report.refused):,} refused"
            )
        if found.unsettled:
            self.tell(f"{self._unsettled(found.unsettled)}; left for the next pass: {_some(found.unsettled)}")
        return found

    def _unsettled(self, files: list[str]) -> str:
        still = "is" if len(files) == 1 else "are"
        return (
            f"{counted(len(files), 'file')} changed in the last {duration(self.options.settle)}, or {still} still "
            f"changing (--settle {self.options.settle:g})"
        )

    def _plan(self, found: Intake) -> dict[str, Any] | PassResult:
        """Return and store the plan of what to train and judge; or the result if there is nothing to do."""
        passes, store = self.registry.passes(), self.store
        baseline = passes[-1] if passes else None
        known = self.registry.version(self.champion)["classes"] if self.champion else ()
        versions = store.versions()
        new = arrivals(
            store,
            versions,
            self.registry.read_json("passes", baseline, "segments.json") if baseline else None,
            recipe=self.run.data.recipe,
            known=known,
            min_per_class=self.options.min_per_class,
        )
        look = {
            "time": time.time(),
            "footage": absolute(self.options.footage),
            "store": store.uri,
            "unsettled": found.unsettled,
            "unlabelled": found.unlabelled,
            "refused_files": new.refused,
            "new": {"clips": new.new_clips.total(), "classes": dict(new.new_clips)},
        }
        if not self.options.force and new.new_clips.total() < max(1, self.options.min_clips):
            return self._leave(look, new.left_out)
        name = name_of(
            self.run, wish=self.wish, champion=self.champion, versions=versions, left_out=tuple(new.left_out)
        )
        plan = {
            "pass": self.registry.new_pass(),
            "step": "train",
            "started": time.time(),
            "asked": self.wish,
            "versions": versions,
            "run": name,
            "champion": self.champion,
            "baseline": baseline,
            "left_out": list(new.left_out),
            "look": look,
            "record": new.record(known),
        }
        self.lease.check()
        self.registry.write_json(segments_record(new, baseline), "passes", plan["pass"], "segments.json")
        self.registry.write_json(plan, "current.json")
        self.tell(
            f"new: {counted(look['new']['clips'], 'training clip')} of "
            f"{', '.join(sorted(new.new_clips)) or 'no class'}; this is pass {plan['pass']}"
        )
        return plan

    def _leave(self, look: dict[str, Any], left_out: dict[str, int]) -> PassResult:
        """Store and return the reason why nothing is trained."""
        clips = look["new"]["clips"]
        reasons = (
            [f"{counted(clips, 'new training clip')}, and a challenger needs {self.options.min_clips:,} (--min-clips)"]
            if clips
            else []
        )
        if left_out:
            reasons.append(
                f"{', '.join(left_out)}: a new class needs {counted(self.options.min_per_class, 'training clip')} and "
                "a held-out group"
            )
        if look["unsettled"]:
            reasons.append(self._unsettled(look["unsettled"]))
        status = "waiting" if reasons else "nothing"
        sentence = (
            f"waiting: {'; '.join(reasons)}"
            if reasons
            else f"nothing new; {'the champion stays' if self.champion else 'there is no champion yet'}"
        )
        look = look | {"status": status, "sentence": sentence, "pass": None}
        self.lease.check()
        self.registry.write_json(look, "last.json")
        return PassResult(status, sentence, None, None, look)

    def _unfinished(self) -> dict[str, Any] | None:
        """Return the plan of a pass that was killed if it is still valid.

        Another recipe, another champion or forgotten footage make it invalid.
        """
        plan = self.registry.current()
        if plan is None:
            return None
        forgotten = any(mark["time"] > plan["started"] for mark in self.store.forgotten().values())
        if plan["asked"] != self.wish or forgotten or (plan["champion"] != self.champion and not self._concluded(plan)):
            self.tell(
                f"pass {plan['pass']} was not finished, and is dropped: the recipe, the champion or the footage has "
                "changed"
            )
            self.registry.end_current()
            return None
        self.tell(f"resuming pass {plan['pass']}, which was interrupted")
        return plan

    def _concluded(self, plan: dict[str, Any]) -> bool:
        return any(entry["pass"] == plan["pass"] for entry in self.registry.history())

    # The challenger

    def _folder(self, plan: dict[str, Any]) -> RunFolder:
        return RunFolder(self.options.runs or self.registry.path("runs"), plan["run"])

    def _train(self, plan: dict[str, Any]) -> str:
        """Train the challenger from its last checkpoint. Return why it cannot be trained, or ""."""
        folder = self._folder(plan)
        history = folder.history()
        if plan["step"] != "train" or (len(history) >= self.run.epochs and folder.checkpoints()):
            return ""
        if not folder.exists():
            remove_tree(folder.uri)  # a killed pass may have begun to write it
        warm = self.champion is not None and not self.options.from_scratch
        changes = {"weights": self.registry.path("versions", self.champion)} if warm else {}
        try:
            session = prepare(
                override(self.run, changes),
                self.options.store,
                runs=self.options.runs or self.registry.path("runs"),
                name=plan["run"],
                resume=folder.exists(),
                versions=plan["versions"],
                left_out=tuple(plan["left_out"]),
            )
        except InputError as error:
            if folder.exists():
                raise
            self.registry.end_current()
            hint = f"; if {self.options.recipe} cannot start from {self.champion}, use --from-scratch" if warm else ""
            raise InputError(f"{error}{hint}") from None
        self.tell(
            f"training challenger {plan['run']}: {counted(len(session.train), 'clip')}, "
            f"{counted(len(session.classes), 'class', 'classes')}, "
            f"{counted(session.run.epochs, 'epoch')}"
            + (f"; {session.start}" if session.start else "")
            + (f"; resumes after epoch {len(history)}" if session.resumed else "")
        )
        begun: list[str] = []

        def on_device(name: str) -> None:
            begun.append(name)
            self.tell(f"running on {name}")

        try:
            outcome = fit(
                session, backend=self.options.backend, on_device=on_device, tell=self.tell, progress=self.progress
            )
        except InputError as error:
            # not the challenger's fault: a cluster that is gone or too small, a full disk
            if not begun or isinstance(error, Unreachable | Busy):
                raise
            return str(error)
        if outcome.get("stopped") == "asked":
            raise KeyboardInterrupt
        self.lease.check()
        plan["step"] = "judge"
        self.registry.write_json(plan, "current.json")
        return ""

    # The decision

    def _judge(self, plan: dict[str, Any]) -> dict[str, Any]:
        folder = self._folder(plan)
        record = folder.record()
        before = self.registry.version(self.champion) if self.champion else None
        challenger = Model(record.run, record.classes, folder.checkpoint("best"))
        champion = before and Model(
            validate(before["run"]), tuple(before["classes"]), self.registry.checkpoint(before["version"])
        )
        said = self.registry.read_json("passes", plan["pass"], "segments.json")["segments"]
        held_out = {segment: of for segment, of in said.items() if of[1] == "test"}
        frozen = frozenset(before["holdout"] if before else ())
        answers = ask(
            self.store,
            plan["versions"],
            held_out,
            frozen,
            challenger,
            champion,
            backend=self.options.backend,
            workers=self.run.scale.sizes[0],
            progress=self.progress,
        )
        return self._record(
            plan, record, answers, judge(answers, self.options.limits), missing=len(frozen - set(answers.segments))
        )

    def _record(
        self, plan: dict[str, Any], record: RunRecord, answers: Answers, judged: dict[str, Any], *, missing: int
    ) -> dict[str, Any]:
        """Add the version; write the decision and its evidence."""
        folder = self._folder(plan)
        history = folder.history()
        best = max(history, key=lambda row: row[f"val_{self.run.metric}"])
        metrics = {
            "challenger": figures(answers, answers.challenger, answers.known),
            "champion": figures(answers, answers.champion, answers.known_before),
        }
        version = {
            "parent": plan["champion"],
            "pass": plan["pass"],
            "run": record.run.model_dump(mode="json"),
            "recipe": self.options.recipe,
            "run_folder": folder.uri,
            "store": self.store.uri,
            "footage_versions": plan["versions"],
            "classes": record.classes,
            "left_out": plan["left_out"],
            "metrics": metrics["challenger"],
            "decision": {name: judged[name] for name in ("outcome", "verdict")},
            "holdout": answers.segments,
            "trained_on": {split: counts["clips"] for split, counts in record.footage.items()},
            "software": software(),
        }
        self.lease.check()
        with folder.checkpoint("best") as weights:
            name = self.registry.add(version, weights / WEIGHTS)
        write_predictions(self.registry.path("passes", plan["pass"], "predictions.parquet"), answers)
        parts = {"frozen": answers.frozen, "new": ~answers.frozen}
        holdout = {
            part: {
                "segments": [answers.segments[row] for row in np.flatnonzero(chosen)],
                "groups": len({answers.groups[row] for row in np.flatnonzero(chosen)}),
            }
            for part, chosen in parts.items()
        }
        holdout["frozen"]["missing"] = missing
        training = {
            "epochs": len(history),
            "best_epoch": best["epoch"],
            "metric": self.run.metric,
            "best": best[f"val_{self.run.metric}"],
            **version["trained_on"],
            "seconds": sum(row["seconds"] for row in history),
        }
        return self._written(
            plan,
            judged
            | {
                "challenger": name,
                "start_sentence": record.start,
                "holdout": holdout,
                "training": training,
                "changed": self._placed(judged["changed"], plan),
                "challenger_metrics": metrics["challenger"],
                "champion_metrics": metrics["champion"],
            },
        )

    def _failed(self, plan: dict[str, Any], why: str) -> dict[str, Any]:
        """Write the decision about a challenger that could not be trained; it is not tried again until something is
        new.
        """
        return self._written(
            plan,
            {
                "outcome": "failed",
                "verdict": f"Failed: the challenger could not be trained: {why}.",
                "reasons": [why],
                "checks": [],
                "rule": None,
                "rule_sentence": "",
                "limits": {},
                "level": None,
                "classes": {"shared": [], "new": [], "gone": []},
                "sets": {},
                "per_class": [],
                "changed": [],
                "challenger": None,
                "start_sentence": "",
                "holdout": {},
                "training": None,
                "challenger_metrics": None,
                "champion_metrics": None,
            },
        )

    def _written(self, plan: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
        look = {name: plan["look"][name] for name in ("unsettled", "unlabelled")}
        decision = (
            {
                "format": FORMAT,
                "pass": plan["pass"],
                "started": plan["started"],
                "ended": time.time(),
                "registry": self.registry.uri,
                "store": self.store.uri,
                "footage": plan["look"]["footage"],
                "recipe": self.options.recipe,
                "run_folder": self._folder(plan).uri,
                "versions": plan["versions"],
                "champion": plan["champion"],
                "baseline": plan["baseline"],
                "start": "scratch" if self.champion is None or self.options.from_scratch else "champion",
            }
            | plan["record"]
            | look
            | judged
        )
        self.lease.check()
        self.registry.write_json(decision, "passes", plan["pass"], "decision.json")
        return decision

    def _placed(self, changed: list[dict[str, Any]], plan: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the segments whose prediction changed, with their place in a video."""
        places = places_of(self.store, [item["segment"] for item in changed], versions=plan["versions"])
        return [
            item
            | {
                "video": (place := places[item["segment"]]).video,
                "uri": place.uri,
                "start": place.start,
                "end": place.end,
            }
            for item in changed
        ]

    def _conclude(self, plan: dict[str, Any], decision: dict[str, Any]) -> PassResult:
        """Switch the pointer, send notifications, and end the pass. All of it may be repeated."""
        self.lease.check()
        if decision["outcome"] == "promoted":
            self.registry.promote(decision["challenger"], why=decision["verdict"], by_pass=plan["pass"])
        for problem in [*publish(self.registry, plan["pass"], decision), *notify(self.options.notification, decision)]:
            self.tell(problem)
        look = plan["look"] | {
            "time": time.time(),
            "status": decision["outcome"],
            "sentence": decision["verdict"],
            "pass": plan["pass"],
        }
        self.registry.write_json(look, "last.json")
        self.registry.end_current()
        return PassResult(decision["outcome"], decision["verdict"], plan["pass"], decision, look)


def publish(registry: Registry, pass_id: str, decision: dict[str, Any]) -> list[str]:
    """Publish a decision as a page and, if wanted, in W&B. Return what went wrong, in sentences; it never stops the
    pass.
    """
    from posture.retrain import page
    from posture.runs.tracking import log_version

    problems = []
    try:
        page.publish(registry, pass_id, decision)
    except Exception as error:  # the decision holds even without its page
        problems.append(f"the decision's page could not be written ({type(error).__name__}: {error})")
    if decision["challenger"] is None:
        return problems
    version = registry.version(decision["challenger"])
    with registry.checkpoint(version["version"]) as weights:
        problem = log_version(
            registry.uri,
            weights / WEIGHTS,
            version,
            alias="champion" if decision["outcome"] == "promoted" else "challenger",
        )
    return [*problems, problem] if problem else problems


def _some(uris: list[str]) -> str:
    return ", ".join(uris[:3]) + (" ..." if len(uris) > 3 else "")
