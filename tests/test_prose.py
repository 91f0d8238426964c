"""Plain English: words and openings that the package's docstrings, comments and messages do without."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "posture"
OPENINGS = re.compile(r"(Of|What|Whose|Whether (that|this)|Nobody|Somebody)\b")
"""How a docstring does not begin: it begins with an imperative verb, or is a noun phrase with its noun."""
WORDS = re.compile(
    r"\b(in vain|came to|comes to|so many|so much as|nobody('s)?|somebody|no one's|(is|are|was|were) told)\b", re.I
)
"""Riddles; say false positive, result, the number, the actor, is reported."""
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.html"))


def docstrings(tree):
    """Yield the line and text of every docstring, those below attributes too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield statement.lineno, str(statement.value.value).strip()


@pytest.mark.parametrize("file", FILES)
def test_docstrings_comments_and_messages_are_plain(file):
    source = (PACKAGE / file).read_text()
    wrong = [f"line {line}: {text[:60]}" for line, text in docstrings(ast.parse(source)) if OPENINGS.match(text)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            wrong += [f"line {token.start[0]}: {found.group()}" for found in WORDS.finditer(token.string)]
    assert not wrong


@pytest.mark.parametrize("file", TEMPLATES)
def test_pages_are_plain(file):
    assert not WORDS.findall((PACKAGE / file).read_text())
