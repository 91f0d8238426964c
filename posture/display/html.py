"""Pages: each is one HTML file that holds its style, charts and images, so that it can be mailed, archived and printed.

A page needs no network and no script; its content security policy forbids both. There are two exceptions.
`review.html`, which `posture review` serves, has a script; `timeline.html` holds one and plays the video beside it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from posture.display import text
from posture.display.text import THIN_SPACE, clock, confidence, decimal, moment, percent, whole

duration = functools.partial(text.duration, digits=1, space=THIN_SPACE)
size = functools.partial(text.size, space=THIN_SPACE)

FOLDER = Path(__file__).parent / "templates"

SEPARATED = re.compile(r"(?<=[/_=@-])(?=[^/_=@\s-])|(?<=[.,:])(?=[^\d\s.,:/])")
"""Positions at which a name may be broken: after a separator, but not within a number."""


def render(template: str, **values: Any) -> str:
    """Return the page `template`, a file of `templates/`, filled with `values`; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=percent,
        decimal=decimal,
        whole=whole,
        duration=duration,
        size=size,
        moment=moment,
        jpeg=jpeg,
        breaks=breaks,
        confidence=confidence,
        clock=clock,
    )
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def script(name: str) -> dict[str, str]:
    """Return a script of `templates/` for a page that holds it: {code, source}, the latter for the page's policy."""
    code = (FOLDER / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return {"code": Markup(code), "source": f"'sha256-{digest}'"}


def write(path: Path, page: str) -> None:
    """Write `page`, making its folder. Lone surrogates, as in names of files, become question marks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode("utf-8", "replace"))


def breaks(name: Any) -> Markup:
    """Return the name, escaped, with a possible line break after every separator."""
    return Markup("<wbr>").join(SEPARATED.split(str(name)))


def origin(uri: str, start: float | None = None) -> dict[str, str]:
    """Return the source of a clip or image for `origin.html`: {name, uri, href, at}.

    `uri` is a path or an s3:// address, for a frame `video#t=seconds`; `start` is in seconds, None for an image. A
    local file is shown by its name, with a link to this time; any other address is shown in full, without a link.
    """
    path, mark, seconds = uri.rpartition("#t=")
    if mark and start is None:
        with contextlib.suppress(ValueError):
            uri, start = path, float(seconds)
    local = uri.startswith("/")
    href = Path(uri).as_uri() + (f"#t={start:g}" if start is not None else "") if local else ""
    return {
        "name": PurePosixPath(uri).name if local else uri,
        "uri": uri,
        "href": href,
        "at": "" if start is None else f"{start:.1f}{THIN_SPACE}s",
    }


def jpeg(frame: np.ndarray, longest_pixels: int = 160, quality: int = 76) -> str:
    """Return a frame, uint8 (H, W, 3) RGB, as a JPEG `data:` address, scaled down to `longest_pixels` if larger."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame, dtype=np.uint8))
    image.thumbnail((longest_pixels, longest_pixels))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def spread(frames: Sequence[np.ndarray], limit: int = 6) -> list[np.ndarray]:
    """Return at most `limit` frames, evenly spaced, with the first and the last."""
    if len(frames) <= limit:
        return list(frames)
    return [frames[round(position)] for position in np.linspace(0, len(frames) - 1, limit)]
