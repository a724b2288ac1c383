"""HTML pages from templates: one file each, nothing from the network, all escaped.

The looks are templates/NAME.html and style.css. Every text may come from outside: it is
escaped, and what cannot be seen in it (control characters, switches of the writing
direction) becomes a visible code.
"""

import base64
import hashlib
import struct
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from unc_jax.data import files

_MOST_BYTES = 12_000_000  # of a picture; a figure of many models has some of them
_PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """A PNG file as a page embeds it."""

    width: int
    height: int
    base64: str


def write_page(path: Path, template: str, **shown: Any) -> None:
    """Writes a template, filled with what is `shown`, piece by piece and atomically.

    The browser is told to refuse scripts, forms, frames and every address, so that
    text which slipped through unescaped could still do nothing.
    """
    pieces = _TEMPLATES.get_template(template).generate(shown)
    with (
        files.replacing(Path(path)) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.writelines(pieces)


def read_picture(path: Path) -> Picture | None:
    """Reads a PNG file; None if it is absent, too large or no PNG."""
    try:
        with open(files.regular(path), "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None
    if len(content) > _MOST_BYTES or content[:8] != _PNG or len(content) < 24:
        return None
    # The page says the size beforehand, so that nothing moves while it builds up.
    width, height = struct.unpack(">II", content[16:24])
    # Its letters are harmless, and too many to be looked at one by one.
    return Picture(width, height, Markup(base64.b64encode(content).decode("ascii")))


def rounded(value: float | None, digits: int = 2) -> str:
    """Returns a number with decimals by its size: 0.874, 12.3, 1,520; "" for None.

    A count (int) has no decimals.
    """
    if value is None:
        return ""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.{digits}f}" if abs(value) >= 0.1 or not value else f"{value:#.2g}"


def _visible(value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    # Undecodable bytes of a file name become codes as well.
    text = value.encode("utf-8", "backslashreplace").decode()
    return "".join(map(_visible_letter, text))


def _visible_letter(letter: str) -> str:
    if letter in "\n\t":
        return " "
    # Cc: control, Cf: invisible, such as a switch of the writing direction.
    odd = unicodedata.category(letter) in ("Cc", "Cf", "Cs")
    return f"\\u{ord(letter):04x}" if odd else letter


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unc_jax.review"),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader
    style, *_ = environment.loader.get_source(environment, "style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(style),
        "policy": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
    }
    environment.filters["rounded"] = rounded
    return environment


_TEMPLATES = _environment()
