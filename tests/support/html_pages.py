"""A page parsed, the checks that every written page passes, and a name that tries to break out of one."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

HOSTILE = "<script>alert('x')</script> & \"y\""


class Page(HTMLParser):
    """A parsed page: its tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.broken = False
        self.feed(text)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.broken = tag == "wbr"  # a place to break a name, which goes on
        if tag not in {"meta", "img", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces[-1:] = [self.pieces[-1] + data] if self.broken and self.pieces else [*self.pieces[-1:], data]
        self.broken = False

    def values(self, tag: str, name: str) -> list[str]:
        return [value for where, key, value in self.attributes if (where, key) == (tag, name)]


def assert_self_contained(text: str) -> Page:
    """Check that a page fetches nothing, runs nothing and closes every tag; return it parsed."""
    page = Page(text)
    assert not page.crossed and not page.open
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
            assert value.startswith("file:///" if tag == "a" else "data:image/"), (tag, name, value[:40])
        assert "url(" not in value
    assert "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text
    return page
