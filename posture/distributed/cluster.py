"""The Ray that a command runs on: the cluster it was submitted to, or one started here for its duration."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from posture.errors import InputError

FORWARDED = ("AWS_", "WANDB_")
"""Environment variables that workers get too, by prefix: storage, tracking."""
SECRET = ("KEY", "SECRET", "TOKEN", "PASSWORD")
"""Parts of names that are never forwarded: they would stand in the job's metadata. Nodes have credentials of their own,
and a Ray started here inherits ours.
"""

ANSWER_SECONDS = 10.0
"""In which something must answer where RAY_ADDRESS says that a cluster is."""

_log = logging.getLogger("posture.display.console")

DECODE = "decode"
"""Custom resource of nodes that decode and read footage. Those without a GPU do only that where it is advertised."""
DECODE_SHARE = 0.001
"""Of it for one task: it says where, and CPUs say how many."""


def connect(**settings: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine. Does nothing inside a running one.

    `settings` go to `ray.init` when Ray is started here (num_cpus, object_store_memory, include_dashboard). With a
    dashboard its address goes to all workers: by both, Ray Train gives back what a driver held that was killed, also
    where other Rays run on this machine.
    Raises InputError if the named cluster does not answer, or asks for another token.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    variables = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(FORWARDED) and not any(part in name for part in SECRET)
    }
    variables["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    arguments: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
        "runtime_env": {"env_vars": variables},
    }
    address = os.environ.get("RAY_ADDRESS")
    keep_token_private(create=not address)
    if address:
        variables["RAY_ADDRESS"] = address
    elif settings.get("include_dashboard"):
        port = os.environ["RAY_GCS_SERVER_PORT"] = str(_free_port())
        variables["RAY_ADDRESS"] = f"{ray.util.get_node_ip_address()}:{port}"
    _refuse_silent(address)
    _log.info(
        "joining the Ray cluster at %s ..." if address else "starting Ray on this machine ...",
        *([address] if address else []),
    )
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with _muted():
            if address:
                ray.init(address=address, **arguments)
            else:
                # or it would join what somebody else started here
                ray.init(**{"address": "local", "include_dashboard": False} | arguments | settings)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        if address and _is_about_the_token(error):
            sent = "and another one was sent" if os.environ.get("RAY_AUTH_MODE") == "token" else "and none was sent"
            raise InputError(
                f"RAY_ADDRESS={address}: this Ray asks for a token, {sent}; export RAY_AUTH_MODE=token, with the cluster's token in "
                "~/.ray/auth_token or RAY_AUTH_TOKEN"
            ) from None
        place = f"RAY_ADDRESS={address}" if address else "Ray on this machine"
        raise InputError(f"{place} cannot be used: {str(error).splitlines()[0]}") from None
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler would end this process without a word, or with an abort
        signal.signal(signal.SIGTERM, terminated)
    _quiet()


def keep_token_private(*, create: bool) -> None:
    """See to it that nobody else on this machine can read ~/.ray/auth_token, by which Ray knows who may run code.

    Ray would make that file readable for everybody. It takes one that is there; so with `create` one is made, unless
    the variables that begin with RAY_AUTH_ say that none is used.
    """
    path = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # a home that cannot be written: Ray says so itself
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
        elif create and not any(name.startswith("RAY_AUTH_") for name in os.environ):
            path.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as made:  # such files are their owner's alone
                made.write(secrets.token_hex(32))
                made.flush()
                os.link(made.name, path)  # which replaces nothing that another process made meanwhile


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep what Ray's C++ part writes straight to the terminal away from it: what went wrong is raised."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def is_alone() -> bool:
    """Whether this Ray is of this machine alone, started for this command."""
    return not os.environ.get("RAY_ADDRESS")


def _refuse_silent(address: str | None) -> None:
    """Raise InputError at once if nothing listens at `host:port`; Ray would try for a minute and a half."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"RAY_ADDRESS={address} cannot be used: nothing answers there ({error}); start Ray there with ray start --head, or unset RAY_ADDRESS "
            "to work on this machine alone"
        ) from None


def _is_about_the_token(error: BaseException | None) -> bool:
    """Whether Ray refused, or could not find, a token; its ConnectionError says so only in what caused it."""
    while error is not None:
        if isinstance(error, AuthenticationError) or "AuthToken" in str(error) or "Unauthenticated" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disconnect() -> None:
    """Leave the cluster, or end the Ray that was started here."""
    if ray.is_initialized():
        ray.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _quiet() -> None:
    """Our own progress says what matters; Ray's bars and notes would bury it. Errors still appear."""
    from ray.data import DataContext

    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def nodes() -> int:
    return len(_alive())


def gpus() -> float:
    return ray.cluster_resources().get("GPU", 0.0)


def sizes() -> list[tuple[float, float]]:
    """(CPUs, GPUs) of every node that may train: all with a CPU but those that only decode."""
    return [
        (node["Resources"]["CPU"], node["Resources"].get("GPU", 0.0))
        for node in _alive()
        if node["Resources"].get("CPU") and not _only_decodes(node)
    ]


def decoding() -> dict[str, float]:
    """What a task that decodes or reads footage asks for, so that it runs where the cluster wants that; nothing where
    no node says so.
    """
    return {DECODE: DECODE_SHARE} if ray.cluster_resources().get(DECODE) else {}


def decoding_cpus() -> float:
    """CPUs of the nodes on which footage is decoded."""
    everywhere = not decoding()
    return sum(node["Resources"].get("CPU", 0.0) for node in _alive() if everywhere or node["Resources"].get(DECODE))


def off_decoders() -> dict[str, str]:
    """A label selector that keeps training without a GPU off the nodes that only decode; empty where there are none."""
    spared = [node["NodeID"] for node in _alive() if _only_decodes(node)]
    return {"ray.io/node-id": f"!in({','.join(spared)})"} if spared else {}


def _only_decodes(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get(DECODE)) and not node["Resources"].get("GPU")


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
