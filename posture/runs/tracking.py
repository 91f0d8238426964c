"""Track runs with Weights & Biases, on rank 0. The only file that imports wandb."""

# what may be None here depends on other values
# pyright: reportArgumentType=false

from __future__ import annotations

import hashlib
import io
import netrc
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from posture.data.store.files import is_remote, join, write_bytes
from posture.errors import InputError

INIT_SECONDS = 20
"""Seconds that W&B's server may take to answer before a run is kept offline."""
FINISH_SECONDS = 60
"""Seconds that sending the rest may take at the end."""
CLOSE_SECONDS = INIT_SECONDS + FINISH_SECONDS + 30
KEPT = "what was logged is kept in the run's folder, below wandb/, for: wandb sync"
UPLOAD_SECONDS = 600
"""Seconds that an upload of a registry's version may take."""
# W&B would also store the command line, whatever it holds, and the code's origin
QUIET = {"console": "off", "silent": True, "disable_git": True, "x_disable_meta": True}


MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
"""Values of WANDB_MODE, in any case, and their meaning here."""
YES = ("true", "1", "yes", "on", "t", "y")


def tracking_mode(asked: str) -> tuple[str, str]:
    """Return (online | offline | off, reason). `auto` is online if a key is found; WANDB_DISABLED and WANDB_MODE take
    precedence, in this order.

    Raises InputError if WANDB_MODE is not a mode of W&B.
    """
    variable = os.environ.get("WANDB_MODE", "").strip()
    if asked == "off":
        return "off", "tracking.mode is off"
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in YES:
        return "off", "WANDB_DISABLED is set"
    if variable:
        if variable.lower() not in MODES:
            raise InputError(
                f"the environment variable WANDB_MODE is {variable!r}; it must be one of {', '.join(MODES)}"
            )
        os.environ["WANDB_MODE"] = variable.lower()  # W&B reads it too, in lower case only
        return MODES[variable.lower()], f"WANDB_MODE is {variable}"
    if asked != "auto":
        return asked, f"tracking.mode is {asked}"
    if _has_key():
        return "online", "an API key was found"
    return "offline", "no API key was found (wandb login, or WANDB_API_KEY)"


class Tracker:
    """One W&B run with the name of ours. Offline runs are kept in the run's folder.

    A thread of its own calls W&B: nothing here raises or waits for it, except `close`, at most CLOSE_SECONDS. If the
    server does not answer or refuses the key, the run is kept offline, for `wandb sync`, and `note` says so after
    `close`.

    A resumed run keeps its id. Offline, W&B cannot resume: the run is written again from its beginning. The numbers of
    the `past`, (step, numbers), that W&B does not have are logged first, so that one run holds all epochs.
    """

    def __init__(
        self, name: str, *, folder: str, config: dict[str, Any], past: Iterable[tuple[int, dict[str, Any]]] = ()
    ) -> None:
        self.note = ""
        self._calls: SimpleQueue[Callable[[Any], None] | int] = SimpleQueue()
        mode, _ = tracking_mode(config["tracking"]["mode"])
        self.is_on = mode != "off"
        if self.is_on:
            self._thread = threading.Thread(
                target=self._work, args=(mode, name, folder, config, list(past)), name="tracking", daemon=True
            )
            self._thread.start()

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log numbers at an optimiser step; steps must not decrease."""
        numbers = _numbers(metrics)
        self._call(lambda run: run.log(numbers, step=step))

    def summarize(self, values: dict[str, Any]) -> None:
        self._call(lambda run: run.summary.update(values))

    def show(self, images: dict[str, bytes]) -> None:
        """Log PNG images by name."""
        self._call(lambda run: run.log(_images(images)))

    def close(self, *, failed: bool = False) -> None:
        if not self.is_on:
            return
        self._calls.put(int(failed))
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self.note = f"Weights & Biases did not finish within {CLOSE_SECONDS} s; {KEPT}"

    def _call(self, call: Callable[[Any], None]) -> None:
        if self.is_on:
            self._calls.put(call)

    def _work(
        self, mode: str, name: str, folder: str, config: dict[str, Any], past: list[tuple[int, dict[str, Any]]]
    ) -> None:
        """Begin the W&B run, make the calls in order, end it."""
        run, why, place = None, "", ""
        try:
            place, tracking = _place(folder), config["tracking"]
            settings = {
                "project": tracking["project"],
                "group": tracking["group"],
                "name": name,
                "id": name,
                "dir": place,
                "config": config,
            }
            _forget_offline(folder, name)
            run, why = _begin(mode, settings, resume="allow")
            for step, numbers in past:
                if step >= run.step:  # online, W&B has the others
                    run.log(_numbers(numbers), step=step)
            while callable(call := self._calls.get()):
                call(run)
        except Exception as error:  # of any kind: tracking must not stop training
            why = f"Weights & Biases stopped accepting data ({_first_line(error)})"
            while callable(call := self._calls.get()):
                pass
        self.note = _end(run, why, place=place, folder=folder, failed=bool(call))


def log_images(images: dict[str, bytes], *, title: str, folder: str, config: dict[str, Any]) -> str:
    """Log PNG images of a finished run as a new W&B run in its group; `config` is the run's configuration. (A run that
    was tracked offline cannot be reopened.)

    Return a sentence on what failed, or "".
    """
    mode, _ = tracking_mode(config["tracking"]["mode"])
    if mode == "off":
        return ""
    place, tracking = _place(folder), config["tracking"]
    settings = {
        "project": tracking["project"],
        "group": tracking["group"] or config["name"],
        "name": title,
        "job_type": "explain",
        "dir": place,
        "config": config,
    }
    run, why = None, ""
    try:
        run, why = _begin(mode, settings)
        run.log(_images(images))
    except Exception as error:
        why = f"Weights & Biases stopped accepting data ({_first_line(error)})"
    return _end(run, why, place=place, folder=folder, failed=False)


def _begin(mode: str, settings: dict[str, Any], *, resume: str | None = None) -> tuple[Any, str]:
    """Return a W&B run and, if it had to be begun offline, the reason."""
    import wandb

    note = ""
    if mode == "online":
        bounded = wandb.Settings(
            **QUIET, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True
        )
        try:
            return wandb.init(**settings, mode="online", resume=resume, settings=bounded), ""
        except Exception as error:
            note = f"Weights & Biases cannot be reached ({_first_line(error)})"
            wandb.teardown()  # the run that failed to begin would keep its id
    return wandb.init(**settings, mode="offline", settings=wandb.Settings(**QUIET)), note


def _end(run: Any | None, why: str, *, place: str, folder: str, failed: bool) -> str:
    """End a W&B run, if one began, and keep in the run's folder what the server did not get. Never raises.

    `why` is the reason for that, if it is known already. Return a sentence for the user, or "".
    """
    if run is None:
        return why
    import wandb

    offline = run.offline
    try:
        run.finish(exit_code=int(failed))
        if offline:
            # only the end of W&B's process guarantees that everything is on disk; finish does not wait for it
            wandb.teardown()
    except TimeoutError:
        why = f"Weights & Biases did not receive everything within {FINISH_SECONDS} s"
    except Exception as error:
        why = f"Weights & Biases stopped accepting data ({_first_line(error)})"
    if is_remote(folder):
        try:
            if offline or why:
                _keep(place, folder)
        except Exception as error:
            return (
                f"{why or 'Weights & Biases is offline'}; what was logged cannot be copied to {folder} "
                f"({_first_line(error)}) and lies in {place}"
            )
        if offline or not why:  # otherwise W&B may still read it
            shutil.rmtree(place, ignore_errors=True)
    return f"{why}; {KEPT}" if why else ""


def _keep(place: str, folder: str) -> None:
    """Copy what W&B wrote into the run's folder in a bucket."""
    for path in Path(place, "wandb").glob("*run-*/**/*"):
        if path.is_file() and not path.is_symlink():
            write_bytes(join(folder, "wandb", path.relative_to(Path(place, "wandb")).as_posix()), path.read_bytes())


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def _images(images: dict[str, bytes]) -> dict[str, Any]:
    import wandb
    from PIL import Image

    return {name: wandb.Image(Image.open(io.BytesIO(content))) for name, content in images.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def log_version(registry: str, weights: Path, version: dict[str, Any], *, alias: str) -> str:
    """Upload a version of the registry at this URI as a version of its artifact, with the alias `champion` or
    `challenger`, if W&B is online.

    Return a sentence on what failed, or "": a pass goes on without W&B.
    """
    config = version["run"]
    if tracking_mode(config["tracking"]["mode"])[0] != "online":
        return ""
    try:
        import wandb

        tracking = config["tracking"]
        bounded = wandb.Settings(
            **QUIET, init_timeout=INIT_SECONDS, finish_timeout=UPLOAD_SECONDS, finish_timeout_raises=True
        )
        with (
            tempfile.TemporaryDirectory(prefix="posture-wandb-", ignore_cleanup_errors=True) as place,
            wandb.init(
                project=tracking["project"],
                group=tracking["group"],
                name=f"{config['name']}-{version['version']}",
                job_type="retrain",
                dir=place,
                config=config,
                mode="online",
                settings=bounded,
            ) as run,
        ):
            artifact = wandb.Artifact(
                artifact_name(registry),
                type="model",
                metadata={name: version[name] for name in ("version", "parent", "pass", "classes", "decision")},
            )
            artifact.add_file(str(weights))
            run.log_artifact(artifact, aliases=[alias, version_alias(version["version"])])
    except Exception as error:  # of many kinds: network, account, quota
        return f"Weights & Biases did not get {version['version']}: {type(error).__name__}: {_first_line(error)}"
    return ""


def move_alias(registry: str, version: dict[str, Any], *, alias: str) -> str | None:
    """Move an alias to a version's artifact, if W&B is online. Return a sentence on what failed, or "".

    Return None if W&B has no artifact of that version, which was made offline; `log_version` uploads it.
    """
    tracking = version["run"]["tracking"]
    if tracking_mode(tracking["mode"])[0] != "online":
        return ""
    try:
        import wandb

        api, name = (
            wandb.Api(timeout=INIT_SECONDS),
            f"{tracking['project']}/{artifact_name(registry)}:{version_alias(version['version'])}",
        )
        if not api.artifact_exists(name):
            return None
        artifact = api.artifact(name)
        if alias not in artifact.aliases:
            # W&B removes the alias from the version that had it
            artifact.aliases.append(alias)
            artifact.save()
    except Exception as error:
        return (
            f"Weights & Biases did not make {version['version']} the {alias}: {type(error).__name__}: "
            f"{_first_line(error)}"
        )
    return ""


def artifact_name(registry: str) -> str:
    """Return the name of the artifact of the registry at this URI, unique in its project."""
    place = hashlib.blake2b(registry.encode(), digest_size=4).hexdigest()
    return f"posture-{re.sub(r'[^A-Za-z0-9_.-]', '-', registry.rpartition('/')[2])[:60]}-{place}"


def version_alias(version: str) -> str:
    """Return `registry-v0001` for `v0001`: W&B numbers versions `v0`, `v1` itself, and its client cannot read an
    artifact with two such names.
    """
    return f"registry-{version}"


def _place(folder: str) -> str:
    """Return the folder for W&B's files: the run's folder, or a temporary one if that is in a bucket."""
    return tempfile.mkdtemp(prefix="posture-wandb-") if is_remote(folder) else folder


def _forget_offline(folder: str, name: str) -> None:
    """Remove the offline files of earlier attempts at this run. (For a bucket they were in a temporary folder.)"""
    if not is_remote(folder):
        for path in Path(folder, "wandb").glob(f"offline-run-*/run-{name}.wandb"):
            shutil.rmtree(path.parent, ignore_errors=True)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    wanted = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    return wanted in hosts
