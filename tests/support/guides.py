"""The README and the guides that it links, and what they tell people to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = sorted(
    path for path in ROOT.rglob("README.md") if not any(part[0] == "." for part in path.relative_to(ROOT).parts)
)


def shown(path: Path, language: str) -> list[str]:
    """Return the code blocks of a guide in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def typed(path: Path) -> list[str]:
    """Return the shell lines of a guide, continued lines joined; of a console those with a prompt."""
    lines = "".join(shown(path, "sh")).replace("\\\n", " ").splitlines()
    return lines + re.findall(r"^\$ (.+)", "".join(shown(path, "console")), re.MULTILINE)


def posture_commands(text: str) -> set[str]:
    """Return the arguments of every `posture` and `python -m posture` in lines of shell."""
    found = re.findall(r"(?:python -m |^)posture ((?!\.\.\.)[^>\n]+)", text, re.MULTILINE)
    return {" ".join(arguments.split(" #")[0].split()) for arguments in found}
