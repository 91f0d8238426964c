"""Run a study: several runs on one budget, each from several seeds, all scored on the same test split. `posture
compare`.

Every choice reads `val`: each run's learning rate is chosen by the same small search, each seed's best epoch as in any
run. `test` is read once, after all training. A run's folder is named after everything that its result depends on, so
that a study that was interrupted, or gets more seeds, trains only the missing runs.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from posture.compare.results import Comparison, Entry
from posture.compare.study_tasks import TASKS
from posture.config import AnyRun, Optim, Study, has_field, identity, override
from posture.data.decode.optical_flow import milliseconds
from posture.data.feed.shards import open_index
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.backend import Local
from posture.runs.evaluate import evaluate, unfinished
from posture.runs.figures import Reads
from posture.runs.folder import RunFolder
from posture.runs.kinds import KINDS
from posture.runs.prepare import prepare
from posture.runs.schedule import schedule

PROBE_STEPS = 3
SOLVER = "L-BFGS to convergence, with the weight decay that has the least loss on val"
"""Optimiser of a network that is fitted at once, in words."""
LEAST_STEPS = 10
"""A network that does fewer steps in the subject's time is not measured."""


@dataclass(frozen=True)
class Job:
    """One run to train or to score, in this process or on a worker."""

    run: AnyRun
    runs: str
    """Folder or s3:// prefix that holds the run's folder."""
    store: str
    versions: dict[str, int]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.runs, self.run.name)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Records of the finished epochs."""
        return self.folder.history()

    def trained(self) -> bool:
        """Return True if all epochs are done, or training stopped early."""
        return bool(self.folder.checkpoints()) and not unfinished(self.run, self.folder)

    def scored(self) -> bool:
        """Return True if the best checkpoint has been scored on `test`."""
        scored = self.folder.evaluation("test")
        return (
            scored is not None
            and self.trained()
            and scored.metrics.get("tag") in (None, self.folder.checkpoints()["best"])
        )

    def is_done(self, step: str) -> bool:
        """Return True if the step "train" or "score" is finished."""
        return self.trained() if step == "train" else self.scored()

    def work(self, step: str) -> str:
        """Do the step "train", from the last checkpoint if there is one, or "score", in this process.

        Return "", or a sentence on why the run cannot be trained, such as a loss that diverged.
        """
        if self.is_done(step):
            return ""
        if step == "score":
            evaluate(self.folder)
            return ""
        try:
            session = prepare(
                self.run,
                self.store,
                runs=self.runs,
                name=self.run.name,
                resume=self.folder.exists(),
                versions=self.versions,
            )
            outcome = Local().train(session, on_progress=_ignore, on_record=_ignore, on_device=_ignore)
        except InputError as error:
            return str(error)
        if outcome["stopped"] == "asked":
            raise KeyboardInterrupt
        return ""


Execute = Callable[[str, list[Job]], dict[str, str]]
"""Does the step "train" or "score" of all jobs; returns what `Job.work` returns, by run name."""


@dataclass
class Contender:
    """A model of the study."""

    kind: str
    run: AnyRun
    """The run with the study's budget and the user's changes."""
    full_size: bool = False
    """The network has no `width`, while the subject's is narrowed. A network that is fitted at once needs none."""
    timed: bool = False
    """Train it for the subject's time instead of its epochs."""
    searched: tuple[Job, ...] = ()
    jobs: tuple[Job, ...] = ()
    not_measured: str = ""


class StudyRunner:
    """A study on a store: `search` learning rates, `train`, score, `collect`."""

    def __init__(
        self,
        study: Study,
        store_uri: str,
        *,
        runs: str,
        seeds: int,
        changes: dict[str, Any],
        execute: Execute,
        equal: str = "epochs",
    ) -> None:
        """`equal` budgets are in "epochs" or in training "time"; networks that cannot be narrowed as the subject is
        always get its time.

        Raises InputError: a change that no run has a field for, an empty split, a store without the flow that a run
        reads.
        """
        self.study, self.store = study, Store(store_uri)
        self.runs, self.seeds, self.execute = runs, range(seeds), execute
        self.task = TASKS[study.subject.task]
        self.versions = self.store.versions()
        self.contenders = _contenders(study, changes)
        self.subject = self.contenders[0]
        for contender in self.contenders:
            contender.timed = (
                contender is not self.subject and not contender.run.solved and (contender.full_size or equal == "time")
            )
            for split in ("train", "val", "test"):
                if not len(self._index(contender.run, split)):
                    raise InputError(
                        f"{self.store.uri}: the {split} split has no {KINDS[study.subject.task].unit}; a comparison "
                        "needs train, val and test"
                    )

        self.schedule = self._choose_epochs()

    def _choose_epochs(self) -> str:
        """Give all runs the epochs that suit the subject's footage, if they are `auto`; return a sentence on them."""
        chosen: dict[str, Any] = {}
        sentence = ""
        for contender in self.contenders:
            times, said = schedule(contender.run, len(self._index(contender.run, "train")))
            if said and not chosen:
                sentence = said
                chosen = {path: times[path] for path in ("epochs", "patience", "optim.warmup_epochs")}
            contender.run = override(contender.run, times | (chosen if said else {}))
        return sentence

    def run(self) -> Comparison:
        """Run the study, without the runs that are done already."""
        equal = [contender for contender in self.contenders if not contender.timed]
        self.search(equal)
        self.train(equal)
        if timed := [contender for contender in self.contenders if contender.timed]:
            self._fit_in_time(timed)
            self.search(timed)
            self.train(timed)
        self.execute(
            "score", [job for contender in self.contenders if not contender.not_measured for job in contender.jobs]
        )
        return self.collect()

    def search(self, contenders: list[Contender]) -> None:
        """Try each learning rate for a share of the budget, and give every run the one that is best on `val`."""
        for contender in contenders:
            run = contender.run
            share = {"epochs": tried_for(self.study, run)}
            if run.steps_per_epoch and run.chosen_epochs == 1:
                share["steps_per_epoch"] = max(1, round(run.steps_per_epoch * self.study.search_share))
            factors = (
                self.study.learning_rates
                if len(self.study.learning_rates) > 1 and not contender.not_measured and not run.solved
                else ()
            )
            contender.searched = tuple(
                self._job(override(run, share | {"optim.lr": float(f"{run.optim.lr * factor:.3g}")}))
                for factor in factors
            )
        self.execute("train", [job for contender in contenders for job in contender.searched])
        for contender in contenders:
            costs = {job.run.optim.lr: self.task.rate_cost(job.history) for job in contender.searched}
            if costs and min(costs.values()) < math.inf:
                contender.run = override(contender.run, {"optim.lr": min(costs, key=costs.__getitem__)})

    def train(self, contenders: list[Contender]) -> None:
        """Train every seed for the whole budget. A run that diverges is not measured, and the reason is kept."""
        for contender in contenders:
            if not contender.not_measured:
                contender.jobs = tuple(self._job(override(contender.run, {"seed": seed})) for seed in self.seeds)
        said = self.execute("train", [job for contender in contenders for job in contender.jobs])
        for contender in contenders:
            contender.not_measured = contender.not_measured or next(
                (said[job.run.name] for job in contender.jobs if said[job.run.name]), ""
            )
        if self.subject.not_measured:
            raise InputError(
                f"study {self.study.name}: {self.subject.run.name} could not be trained: {self.subject.not_measured}"
            )

    def _fit_in_time(self, contenders: list[Contender]) -> None:
        """Give each as many steps as fit the subject's training time, from the measured speed of a few steps."""
        subject = self.subject.run
        clips = len(self._index(subject, "train")) // subject.scale.global_batch * subject.scale.global_batch
        seconds = float(
            np.mean([sum(clips / record["clips_per_second"] for record in job.history) for job in self.subject.jobs])
        )
        probes = {
            contender.run.name: self._job(override(contender.run, {"epochs": 1, "steps_per_epoch": PROBE_STEPS}))
            for contender in contenders
        }
        said = self.execute("train", list(probes.values()))
        for contender in contenders:
            probe = probes[contender.run.name]
            contender.not_measured = said[probe.run.name]
            if contender.not_measured:
                continue
            steps = int(seconds * probe.history[-1]["clips_per_second"] / contender.run.scale.global_batch)
            whole = len(self._index(contender.run, "train")) // contender.run.scale.global_batch
            if steps < LEAST_STEPS:
                size = "it cannot be narrowed, and at full size it" if contender.full_size else "it"
                contender.not_measured = (
                    f"{size} does {steps} steps in the {seconds:.0f} s in which {subject.name} trained here"
                )
            elif steps < whole:
                contender.run = override(contender.run, {"epochs": 1, "steps_per_epoch": steps})
            else:
                contender.run = override(contender.run, {"epochs": steps // whole})

    def _job(self, run: AnyRun) -> Job:
        """Return the job of a run, named after everything that decides its result, such as the tables that it reads."""
        versions = {name: self.versions.get(name) for name in KINDS[run.task].tables(run)}
        content = identity(run, without={"name", "seed", "tracking"})
        content |= {"store": self.store.uri, "versions": versions}
        digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
        return Job(
            override(run, {"name": f"{run.name}-{digest}-s{run.seed}"}), self.runs, self.store.uri, self.versions
        )

    def collect(self) -> Comparison:
        """Return the results, for `posture.compare.action` or `posture.compare.detection`."""
        entries = [self._entry(contender) for contender in self.contenders]
        run = self.subject.run
        index = self._index(run, "test")
        record = self.subject.jobs[0].folder.record()
        metrics = entries[0].results[0].metrics
        unit = KINDS[run.task].unit
        trained_on = f"{len(self._index(run, 'train'))} training {unit}"
        budget = f"{run.chosen_epochs} epochs of {trained_on}, batches of {run.scale.global_batch}"
        if timed := [
            self.study.titles.get(contender.run.name, contender.run.name)
            for contender in self.contenders
            if contender.timed
        ]:
            budget += f"; {', '.join(timed)}: as many steps as fit the time in which the subject trained"
        factors = ", ".join(f"{factor:.2g}" for factor in self.study.learning_rates)
        searched = self.subject.searched
        search = (
            f"{factors} times the recipe's, {_budget(searched[0].run)} each with seed {run.seed}; "
            f"{self.task.criterion} decides"
            if searched
            else "none: each model has its recipe's rate"
        )
        facts = {
            "budget": budget,
            "seeds": list(self.seeds),
            "learning_rate_search": search,
            "hardware": f"{record.machine}; {metrics['device']}",
            "speed": f"training {unit}/s: median over epochs, while runs of the study shared the machine; "
            f"{self.task.latency}",
            "software": record.software,
            "store": self.store.uri,
            "tables": self.versions,
            "protocol": metrics["protocol"],
            "footage": record.footage | {"test": index.counts},
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "departures": list(self.study.departures),
        }
        groups = self.task.groups(self.store, index, self.versions)
        return Comparison(self.study.name, entries, run.name, groups, index.classes, facts | self.task.facts(metrics))

    def segments_for(self, seed: int) -> int:
        """Return the number of training segments, or images, of the subject's run with this seed."""
        counts = self._index(override(self.subject.run, {"seed": seed}), "train").counts
        return counts.get("segments", next(iter(counts.values())))

    def _index(self, run: AnyRun, split: str) -> Any:
        return KINDS[run.task].index(run, self.store, split, Reads(self.versions))

    def _entry(self, contender: Contender) -> Entry:
        from posture.models import build
        from posture.models.summary import parameters

        classes = self._index(contender.run, "train").classes
        run = override(contender.run, {"model.classes": len(classes)})
        model = build(run.model).eval()
        results = (
            []
            if contender.not_measured
            else [self.task.result(job, job.folder.evaluation("test")) for job in contender.jobs]
        )
        speeds = [record["clips_per_second"] for result in results for record in result.history]
        seconds = [sum(record["seconds"] for record in result.history) for result in results]
        return Entry(
            name=run.name,
            title=self.study.titles.get(run.name, run.name),
            kind=contender.kind,
            parameters=parameters(model),
            **self.task.costs(run, model, timed=bool(results)),
            **self._flow_of(run, timed=bool(results)),
            epochs=run.chosen_epochs,
            budget=_budget(run),
            optimizer=SOLVER if run.solved else _optimizer(run.optim),
            lr=0.0 if run.solved else run.optim.lr,
            lr_search=[_tried(job) for job in contender.searched],
            search_budget=_budget(contender.searched[0].run) if contender.searched else "",
            loss=run.loss.model_dump(mode="json"),
            streams=len(getattr(run.model, "inputs", ("rgb",))),
            clips_per_second=float(np.median(speeds)) if speeds else None,
            device_hours=float(np.mean(seconds)) / 3600 * run.scale.sizes[-1] if seconds else None,
            results=results,
            not_measured=contender.not_measured,
            replaced=run.name in self.study.replacements,
        )

    def _flow_of(self, run: AnyRun, *, timed: bool) -> dict[str, Any]:
        """Return the method of the optical flow that a network reads, and the milliseconds it takes for a stored test
        clip; {} if it reads none.
        """
        if "flow" not in getattr(run.model, "inputs", ()):
            return {}
        index = self._index(run, "test")
        if not timed:
            return {"flow": index.flow}
        clip = open_index(replace(index.part(np.array([0])), inputs=("rgb",)), feed="materialize").clip(0)
        return {"flow": index.flow, "flow_ms": milliseconds(clip[: run.model.frames], index.flow)}


def _optimizer(optim: Optim) -> str:
    """Return an optimiser and its settings, without the learning rate, in words."""
    name = {"sgd": "SGD, momentum", "adam": "Adam, beta1", "adamw": "AdamW, beta1"}[optim.name]
    parts = [f"{name} {optim.momentum:g}", f"weight decay {optim.weight_decay:g}"]
    parts += [f"gradients clipped to a norm of {optim.clip_norm:g}"] if optim.clip_norm else []
    parts += [f"weights averaged with a decay of {optim.ema:g}"] if optim.ema else []
    return ", ".join(parts)


def tried_for(study: Study, run: AnyRun) -> int:
    """Return the number of epochs that each learning rate is tried for."""
    return max(1, round(run.chosen_epochs * study.search_share))


def _budget(run: AnyRun) -> str:
    """Return the length of a run's training in words."""
    if run.solved:
        return "fitted at once"
    if run.steps_per_epoch:
        steps = run.chosen_epochs * run.steps_per_epoch
        return f"{steps:,} step{'s' * (steps != 1)}"
    return f"{run.chosen_epochs} epoch{'s' * (run.chosen_epochs != 1)}"


def _contenders(study: Study, changes: dict[str, Any]) -> list[Contender]:
    """Return the study's runs with its budget and those of the user's changes that a run has the field for. Raises
    InputError for a change that no run has the field for.
    """
    changes = {"epochs": study.epochs, "tracking.group": study.name} | changes
    kinds = {
        "ours": (study.subject,),
        "baseline": study.baselines,
        "ablation": study.ablations,
        "reference": study.references,
    }
    contenders: list[Contender] = []
    for kind, run in [(kind, run) for kind, members in kinds.items() for run in members]:
        own = {path: value for path, value in changes.items() if has_field(run, path) and not _in_vain(run, path)}
        contenders.append(Contender(kind, override(run, own)))
    narrowed = getattr(contenders[0].run.model, "width", 1) != 1
    for contender in contenders:
        contender.full_size = narrowed and not hasattr(contender.run.model, "width") and not contender.run.solved
    for path, value in changes.items():
        if not any(has_field(contender.run, path) for contender in contenders):
            override(study.subject, {path: value})  # raises, naming the fields that exist
    return contenders


def _in_vain(run: AnyRun, path: str) -> bool:
    """Return True if a network that is fitted at once takes no such change."""
    return run.solved and path in ("epochs", "steps_per_epoch", "patience", "weights")


def _tried(job: Job) -> dict[str, Any]:
    """Return the results of a learning rate on `val`."""
    best = max((record[f"val_{job.run.metric}"] for record in job.history), default=None)
    losses = [record["val_loss"] for record in job.history if "val_loss" in record]
    return {
        "lr": job.run.optim.lr,
        "val_loss": min(losses, default=math.inf if not job.history else None),
        f"val_{job.run.metric}": best,
    }


def _ignore(_: Any) -> None:
    """Do nothing: the progress of a study's run is read from its folder."""
