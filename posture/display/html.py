"""The pages people read: each is one file with its style, charts and images inside, so that it can be mailed,
archived and printed.

Templates and the style sheet stand beside this file. A page needs no network and no script; its content security policy
forbids both. (`review.html` alone is no such page: `posture review` serves it, with a script, while it runs.)
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from posture.display import text
from posture.display.text import THIN_SPACE, confidence, decimal, moment, percent, whole

duration = functools.partial(text.duration, digits=1, space=THIN_SPACE)
size = functools.partial(text.size, space=THIN_SPACE)

FOLDER = Path(__file__).parent / "templates"

SEPARATED = re.compile(r"(?<=[/_=@-])(?=[^/_=@\s-])|(?<=[.,:])(?=[^\d\s.,:/])")
"""Where a name may be broken: after a separator, but not within a number."""


def render(template: str, **values: Any) -> str:
    """The page `template` (a file of this folder) filled with `values`; all text is escaped."""
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
    )
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def write(path: Path, page: str) -> None:
    """Write `page`, making its folder. File names that are no valid text (lone surrogates) become question marks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode("utf-8", "replace"))


def breaks(name: Any) -> Markup:
    """The name, escaped, with a place to break the line after every separator."""
    return Markup("<wbr>").join(SEPARATED.split(str(name)))


def origin(uri: str, start: float | None = None) -> dict[str, str]:
    """Where a clip or image comes from, for `origin.html`: {name, uri, href, at}.

    `uri` is a path or an s3:// address, of a frame `video#t=seconds`; `start` seconds into the video, None for a
    image. A local file is named by its last part and linked to, at that moment; any other address is shown whole and
    is not linked to.
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
    """A frame, uint8 (H, W, 3) RGB, as a JPEG `data:` address; larger ones are scaled down to `longest_pixels`."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame, dtype=np.uint8))
    image.thumbnail((longest_pixels, longest_pixels))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def spread(frames: Sequence[np.ndarray], most: int = 6) -> list[np.ndarray]:
    """At most `most` of the frames, evenly over their time, first and last included."""
    if len(frames) <= most:
        return list(frames)
    return [frames[round(position)] for position in np.linspace(0, len(frames) - 1, most)]
