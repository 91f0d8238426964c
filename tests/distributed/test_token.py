"""Ray's token lets its reader run code as the user: nobody else can read the file."""

import os
import stat
import subprocess
import sys

import pytest

CODE = "from posture.distributed import cluster\n"


def run(home, code, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE + code],
        env=clean | {"HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def modes(home):
    return {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text()) for path in (home / ".ray").iterdir()}


def test_a_token_is_made_for_its_owner_alone_and_kept(tmp_path):
    run(tmp_path, "cluster.keep_token_private(create=True)")
    ((name, (mode, token)),) = modes(tmp_path).items()
    assert (name, mode, len(token)) == ("auth_token", 0o600, 64)
    run(tmp_path, "cluster.keep_token_private(create=True)")
    assert modes(tmp_path) == {"auth_token": (0o600, token)}


def test_a_token_that_everybody_could_read_is_closed(tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("theirs")
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    run(tmp_path, "cluster.keep_token_private(create=False)")
    assert modes(tmp_path) == {"auth_token": (0o600, "theirs")}


@pytest.mark.parametrize("variables", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}])
def test_none_is_made_if_none_is_used(tmp_path, variables):
    run(tmp_path, "cluster.keep_token_private(create=True)", **variables)
    assert not (tmp_path / ".ray").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_ray_starts_with_the_token(tmp_path):
    run(
        tmp_path,
        "import ray\ncluster.connect(num_cpus=1, object_store_memory=100_000_000)\n"
        "assert ray.get(ray.remote(lambda: 7).remote()) == 7",
    )
    assert [mode for mode, _ in modes(tmp_path).values()] == [0o600]
