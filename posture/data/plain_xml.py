"""XML without document types and entities: labels need neither, and both let a small file become a huge one or read other files."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_DECLARED = re.compile(r"<!(DOCTYPE|ENTITY)")


class BadXML(ValueError):
    """Not XML, or more than plain XML."""


def parse_xml(text: str) -> ElementTree.Element:
    """The root element. Text has no other encoding any more, so that a declaration cannot hide in one."""
    declared = _DECLARED.search(text)
    if declared:
        raise BadXML(f"line {text.count(chr(10), 0, declared.start()) + 1}: <!{declared[1]}> is not allowed in labels")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadXML(f"line {error.position[0]}: not XML ({str(error).partition(':')[0]})") from None
