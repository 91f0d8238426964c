"""Weights & Biases; the only file that imports wandb. Rank 0 alone tracks."""

from __future__ import annotations

import io
import netrc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from posture.data.files import is_remote

INIT_SECONDS, FINISH_SECONDS = 30.0, 600.0
"""W&B may take so long to answer, and to take weights in, before a registry goes on without it."""


def tracking_mode(asked: str) -> tuple[str, str]:
    """(online | offline | off, why). `auto` is online where a key is found; WANDB_MODE has the last word."""
    variable = os.environ.get("WANDB_MODE", "")
    if asked == "off" or variable == "disabled":
        return "off", "tracking.mode is off" if asked == "off" else "WANDB_MODE is disabled"
    if variable in ("online", "offline"):
        return variable, f"WANDB_MODE is {variable}"
    if asked != "auto":
        return asked, f"tracking.mode is {asked}"
    if _has_key():
        return "online", "an API key was found"
    return "offline", "no API key was found (wandb login, or WANDB_API_KEY)"


class Tracker:
    """One W&B run, named as ours. Offline runs lie in the run's folder.

    A run that is resumed goes on under the same id. Offline, where W&B knows no resuming, it begins anew in place of what was written before:
    `begins_anew` asks for the epochs that were, so that there is one run to sync, and it is whole.
    """

    def __init__(self, name: str, *, folder: str, config: dict[str, Any]) -> None:
        mode, _ = tracking_mode(config["tracking"]["mode"])
        self._run, self.begins_anew = None, False
        if mode == "off":
            return
        import wandb

        tracking = config["tracking"]
        self.begins_anew = mode == "offline" and _forget_offline(folder, name)
        self._run = wandb.init(project=tracking["project"], group=tracking["group"], name=name, id=name, dir=_place(folder), config=config, mode=mode,
                               resume="allow" if mode == "online" else None, settings=wandb.Settings(console="off", silent=True))

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Numbers at an optimiser step; steps must not go back."""
        if self._run is not None:
            self._run.log({name: value for name, value in metrics.items() if isinstance(value, int | float)}, step=step)

    def summarize(self, values: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.summary.update(values)

    def show(self, pictures: dict[str, bytes]) -> None:
        """Pictures (PNG) by name."""
        if self._run is not None:
            import wandb
            from PIL import Image

            self._run.log({name: wandb.Image(Image.open(io.BytesIO(content))) for name, content in pictures.items()})

    @property
    def is_on(self) -> bool:
        return self._run is not None

    def close(self, *, failed: bool = False) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def log_pictures(pictures: dict[str, bytes], *, title: str, folder: str, config: dict[str, Any]) -> None:
    """Pictures (PNG) of a finished run, `config`, as a W&B run of its own in its group: a run that was tracked offline cannot be reopened."""
    mode, _ = tracking_mode(config["tracking"]["mode"])
    if mode == "off":
        return
    import wandb
    from PIL import Image

    tracking = config["tracking"]
    run = wandb.init(project=tracking["project"], group=tracking["group"] or config["name"], name=title, job_type="explain", dir=_place(folder),
                     config=config, mode=mode, settings=wandb.Settings(console="off", silent=True))
    run.log({name: wandb.Image(Image.open(io.BytesIO(content))) for name, content in pictures.items()})
    run.finish()


def log_version(weights: Path, version: dict[str, Any], *, alias: str) -> str:
    """A registry's version as an artifact of its recipe's name, with the alias `champion` or `challenger`, where W&B is online.

    Returns why that could not be done, in a sentence, or "": whoever calls has more important things to finish.
    """
    config = version["run"]
    if tracking_mode(config["tracking"]["mode"])[0] != "online":
        return ""
    try:
        import wandb

        tracking = config["tracking"]
        run = wandb.init(project=tracking["project"], group=tracking["group"], name=f"{config['name']}-{version['version']}", job_type="retrain",
                         dir=tempfile.mkdtemp(prefix="posture-wandb-"), config=config, mode="online",
                         settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS,
                                                 finish_timeout_raises=True))
        artifact = wandb.Artifact(f"posture-{config['model']['kind']}", type="model",
                                  metadata={name: version[name] for name in ("version", "parent", "pass", "classes", "decision")})
        artifact.add_file(str(weights))
        run.log_artifact(artifact, aliases=[alias, version["version"]])
        run.finish()
    except Exception as error:  # of many kinds: network, account, quota
        return f"Weights & Biases did not get {version['version']}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _place(folder: str) -> str:
    """Where W&B keeps its files: the run's folder, or a temporary one where that is in a bucket."""
    return tempfile.mkdtemp(prefix="posture-wandb-") if is_remote(folder) else folder


def _forget_offline(folder: str, name: str) -> bool:
    """Remove what earlier attempts at this run wrote offline; whether there was any. In a bucket, it was in a temporary folder."""
    if is_remote(folder):
        return False
    written = [path.parent for path in Path(folder, "wandb").glob(f"offline-run-*/run-{name}.wandb")]
    for place in written:
        shutil.rmtree(place, ignore_errors=True)
    return bool(written)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    wanted = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    return wanted in hosts
