"""Connect a command to Ray: to the cluster it was submitted to, or to a Ray started on this machine for it."""

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
"""Prefixes of the environment variables that are passed to workers: storage, tracking."""
SECRET = ("KEY", "SECRET", "TOKEN", "PASSWORD")
"""Parts of names that are never passed: the job's metadata would show them. Nodes have credentials of their own, and a
Ray started here inherits ours.
"""

ANSWER_SECONDS = 10.0
"""Seconds in which the address in RAY_ADDRESS must answer."""

_log = logging.getLogger("posture.display.console")

DECODE = "decode"
"""Custom resource of nodes that decode and read footage. Nodes that have it, but no GPU, do nothing else."""
DECODE_SHARE = 0.001
"""Share of it for one task: it decides where tasks run, CPUs decide how many."""


def connect(**settings: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine. Do nothing if Ray is running.

    `settings` go to `ray.init` if Ray is started here (num_cpus, object_store_memory, include_dashboard). With a
    dashboard its address goes to all workers: Ray Train needs both to free what a killed driver held, if other Rays run
    on this machine too.
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
                # without "local" it would join a Ray that another user started here
                ray.init(**{"address": "local", "include_dashboard": False} | arguments | settings)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        if address and _is_about_the_token(error):
            sent = "and another one was sent" if os.environ.get("RAY_AUTH_MODE") == "token" else "and none was sent"
            raise InputError(
                f"RAY_ADDRESS={address}: this Ray asks for a token, {sent}; export RAY_AUTH_MODE=token, with the "
                "cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
            ) from None
        place = f"RAY_ADDRESS={address}" if address else "Ray on this machine"
        raise InputError(f"{place} cannot be used: {str(error).splitlines()[0]}") from None
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler would end this process without a message, or abort it
        signal.signal(signal.SIGTERM, terminated)
    _quiet()


def keep_token_private(*, create: bool) -> None:
    """Make ~/.ray/auth_token, which lets its readers run code on Ray, readable for this user alone.

    Ray would create the file readable for all users, but it uses an existing one. So with `create` the file is made
    here, unless a variable that begins with RAY_AUTH_ is set.
    """
    path = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # if the home folder is read-only, Ray reports it
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
        elif create and not any(name.startswith("RAY_AUTH_") for name in os.environ):
            path.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent
            ) as made:  # temporary files are readable for their owner only
                made.write(secrets.token_hex(32))
                made.flush()
                os.link(made.name, path)  # fails if another process made it meanwhile


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Discard what Ray's C++ part writes straight to the terminal; errors are raised anyway."""
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
    """Return True if Ray was started on this machine for this command."""
    return not os.environ.get("RAY_ADDRESS")


def _refuse_silent(address: str | None) -> None:
    """Raise InputError at once if nothing listens at `host:port`; Ray would try for 90 s."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"RAY_ADDRESS={address} cannot be used: nothing answers there ({error}); start Ray there with ray start "
            "--head, or unset RAY_ADDRESS to use this machine alone"
        ) from None


def _is_about_the_token(error: BaseException | None) -> bool:
    """Return True if Ray refused, or did not find, a token; only the causes of its ConnectionError say so."""
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
    """Turn off Ray's progress bars and notes, which would hide ours. Errors still appear."""
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
    """Return (CPUs, GPUs) of every node that may train: all nodes with a CPU, except those that only decode."""
    return [
        (node["Resources"]["CPU"], node["Resources"].get("GPU", 0.0))
        for node in _alive()
        if node["Resources"].get("CPU") and not _only_decodes(node)
    ]


def decoding() -> dict[str, float]:
    """Return the resources for a task that decodes or reads footage; {} if no node is reserved for decoding."""
    return {DECODE: DECODE_SHARE} if ray.cluster_resources().get(DECODE) else {}


def decoding_cpus() -> float:
    """Return the number of CPUs on nodes that decode footage."""
    everywhere = not decoding()
    return sum(node["Resources"].get("CPU", 0.0) for node in _alive() if everywhere or node["Resources"].get(DECODE))


def off_decoders() -> dict[str, str]:
    """Return a label selector that keeps training on CPUs off the nodes that only decode; {} if there are none."""
    spared = [node["NodeID"] for node in _alive() if _only_decodes(node)]
    return {"ray.io/node-id": f"!in({','.join(spared)})"} if spared else {}


def _only_decodes(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get(DECODE)) and not node["Resources"].get("GPU")


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
