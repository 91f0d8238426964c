"""Parse XML without document types and entities: they let a small file grow huge, or read others."""

from __future__ import annotations

import codecs
import re
from xml.etree import ElementTree

from posture.data.labels.tree import decoded

_DECLARED = re.compile(r"<!(DOCTYPE|ENTITY)")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Declared encodings whose files often use a larger one, which contains them."""
_NO_ENCODINGS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "utf-7"})
"""Python codecs that are not text encodings of files."""


class BadXML(ValueError):
    """Content that is not XML, or not plain XML."""


def parse_xml(content: bytes) -> ElementTree.Element:
    """Return the root element. The text is decoded as declared, else as UTF-8, UTF-16 or UTF-32. Raises BadXML.

    Document types are searched for in the decoded text, so that no encoding can hide one.
    """
    text = _text(content)
    declared = _DECLARED.search(text)
    if declared:
        raise BadXML(f"line {text.count(chr(10), 0, declared.start()) + 1}: <!{declared[1]}> is not allowed in labels")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadXML(f"line {error.position[0]}: not XML ({str(error).partition(':')[0]})") from None
    except ValueError as error:  # a NUL or half of a surrogate pair
        raise BadXML(f"not XML ({error})") from None


def _text(content: bytes) -> str:
    declared = _ENCODING.search(content)
    name = declared[1].decode() if declared else ""
    try:
        if not declared or content.startswith(codecs.BOM_UTF8):
            return decoded(content)
        codec = codecs.lookup(name).name
        if codec in _NO_ENCODINGS:
            raise LookupError
        return content.decode(_WIDER.get(codec, codec))
    except LookupError:
        raise BadXML(f"line 1: unknown encoding {name}") from None
    except UnicodeError:
        what = f"it declares the encoding {name}" if declared else "it declares no encoding and is not UTF-8"
        raise BadXML(f"{what}, but its bytes are not in it" if declared else what) from None
