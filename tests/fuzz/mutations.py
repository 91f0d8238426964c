"""Ways in which files break: bytes of any file, and text of a table of labels. Each is a function of a random.Random
and the content.
"""

from __future__ import annotations

import random
import struct

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 20_000)
ODD = (
    "",
    " ",
    "nan",
    "-nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "1e-999",
    "0.5.5",
    "12,5",
    "1" * 400,
    "9" * 6000,
    "../../etc/passwd",
    "/",
    "a/b\\c",
    "\x00",
    "\x1b[31m",
    "[bold]x[/bold]",
    "'",
    '"',
    "=1+1",
    "\u00e9",
    "e\u0301",
    "\u202e",
    "\ufeff",
    "true",
    "null",
    "{}",
    "[]",
    "&a",
    "*a",
    "<x>",
    "&lt;",
    "]]>",
    "%25",
    "train",
    "test",
    "kick",
    "label",
    "video",
    "x" * 3000,
)


def flip(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A few bits anywhere."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 3, 20, 200))):
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    return bytes(made)


def flip_head(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A few bits near the start or the end, where containers keep their index."""
    made = bytearray(content)
    span = min(700, len(made))
    for _ in range(chance.choice((1, 2, 5))):
        place = chance.randrange(span)
        made[place if chance.random() < 0.6 else len(made) - 1 - place] ^= 1 << chance.randrange(8)
    return bytes(made)


def renumber(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """An extreme number where another stood: sizes, counts, times."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 2))):
        at = (
            chance.randrange(max(1, min(len(made), 900) - 4))
            if chance.random() < 0.7
            else chance.randrange(max(1, len(made) - 4))
        )
        made[at : at + 4] = struct.pack(chance.choice((">I", "<I")), chance.choice(NUMBERS))
    return bytes(made)


def cut(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Without its end."""
    return content[: int(len(content) * chance.random())]


def behead(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Without its start."""
    return content[int(len(content) * chance.random() * 0.5) :]


def hole(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Zeros, as a lost block of a disk."""
    begin = chance.randrange(len(content))
    end = min(len(content), begin + chance.choice((16, 512, 4096)))
    return content[:begin] + bytes(end - begin) + content[end:]


def noise(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Random bytes put between."""
    at = chance.randrange(len(content))
    return content[:at] + chance.randbytes(chance.choice((1, 100, 5000))) + content[at:]


def splice(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """The start of one file and the rest of another."""
    at = int(min(len(content), len(other)) * chance.random())
    return content[:at] + other[at:]


def repeat(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A part of it twice."""
    begin = chance.randrange(len(content))
    end = min(len(content), begin + chance.choice((50, 1000, 10_000)))
    return content[:end] + content[begin:]


BYTES = (flip, flip_head, flip_head, renumber, renumber, cut, behead, hole, noise, splice, repeat)


def mutate(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """One of the ways, sometimes two."""
    for _ in range(chance.choice((1, 1, 1, 2))):
        content = chance.choice(BYTES)(chance, content, other) or b"\0"
    return content


def odd_words(chance: random.Random, text: str) -> str:
    """Some words, numbers or names replaced by odd ones."""
    marks = [place for place, sign in enumerate(text) if not sign.isalnum() and sign not in "._-"]
    for _ in range(chance.choice((1, 2, 6))):
        if len(marks) < 2:
            break
        first = chance.randrange(len(marks) - 1)
        text = text[: marks[first] + 1] + chance.choice(ODD) + text[marks[first + 1] :]
        marks = [place for place, sign in enumerate(text) if not sign.isalnum() and sign not in "._-"]
    return text


def odd_lines(chance: random.Random, text: str) -> str:
    """Lines doubled, lost, moved or joined."""
    lines = text.splitlines(keepends=True)
    for _ in range(chance.choice((1, 3))):
        if not lines:
            break
        place = chance.randrange(len(lines))
        how = chance.randrange(5)
        if how == 0:
            lines.insert(chance.randrange(len(lines) + 1), lines[place])
        elif how == 1:
            del lines[place]
        elif how == 2:
            lines.insert(chance.randrange(len(lines)), lines.pop(place))
        elif how == 3:
            lines[place] = lines[place].rstrip("\n")
        else:
            lines.insert(place, chance.choice(("\n", "sep=;\n", "# note\n", "\x00\n", ",,,,\n", "%\n")))
    return "".join(lines)


def odd_signs(chance: random.Random, text: str) -> str:
    """Another delimiter, quote or bracket throughout."""
    old, new = chance.choice((
        (",", ";"),
        (",", "\t"),
        (",", "|"),
        (" ", "\t"),
        ("/", "\\"),
        (".", ","),
        ('"', "'"),
        ("\n", "\r"),
        ("\n", "\r\n"),
        ("{", "["),
        ("<", "&lt;"),
        (":", "="),
        (" ", ""),
        ("0", "O"),
        ("1", "nan"),
        ("\n", "\n\n"),
    ))
    return text.replace(old, new)


def deep(chance: random.Random, text: str) -> str:
    """Nested as nobody nests."""
    opening, closing = chance.choice((("[", "]"), ("{a: ", "}"), ('{"a":', "}"), ("<a>", "</a>")))
    many = chance.choice((100, 20_000))
    return chance.choice((opening * many + closing * many, text + opening * many, opening * many + text))


TEXTS = (odd_words, odd_words, odd_words, odd_lines, odd_lines, odd_signs, deep)
ENCODINGS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "latin-1",
    "cp1252",
    "shift_jis",
    "utf-32",
)


def mutate_text(chance: random.Random, content: bytes) -> bytes:
    """A table of labels, broken as text, as bytes, or written in another encoding."""
    if chance.random() < 0.2:
        return mutate(chance, content, content[::-1])
    text = content.decode()
    for _ in range(chance.choice((1, 1, 2))):
        text = chance.choice(TEXTS)(chance, text)
    return text.encode(chance.choice(ENCODINGS), errors="replace")
