"""A web page in one file: no scripts, nothing from the network, nothing unescaped."""

import base64
import hashlib
import html
import struct
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from unc_jax.data import files

_STYLE = """
:root{color-scheme:light;--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;--mark:#1f4e9c}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:24px 20px 64px;color:var(--ink);
 background:#fff;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
 overflow-wrap:anywhere}
h1{font-size:28px;line-height:1.2;margin:8px 0}
h2{font-size:20px;margin:36px 0 8px}h3{font-size:18px;margin:20px 0 4px}
.head h3{margin:0}
a{color:var(--mark)}p{margin:8px 0}.soft{color:var(--soft)}
.small{font-size:14px}.number{font-variant-numeric:tabular-nums;white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:15px}
th{font-size:13px;color:var(--soft);font-weight:600;text-align:left}
th,td{padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
td.number,th.number{text-align:right;padding-right:18px}
.list th.wide{width:32%}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 16px;flex:1 1 130px}
.card b{display:block;font-size:26px;line-height:1.2}
.badge{display:inline-block;border-radius:4px;padding:1px 8px;font-size:13px;
 font-weight:600;white-space:nowrap}
.review{background:#ffecc7;color:#704300}.failed{background:#ffdedb;color:#8a1c13}
.fine{background:#e3f1e8;color:#1c5a35}
.case{border-top:2px solid var(--line);margin-top:28px;padding-top:16px}
.head{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:baseline}
.head .up{margin-left:auto;font-size:14px}
.picture{overflow-x:auto;background:#000;border-radius:6px;margin:10px 0}
.picture img{display:block;margin:0 auto;height:auto;max-width:none}
.both{display:grid;grid-template-columns:minmax(0,4fr) minmax(0,6fr);gap:8px 32px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 16px;
 margin:8px 0;font-size:15px}
dt{color:var(--soft)}dd{margin:0}
svg{display:block;max-width:100%}summary{cursor:pointer;color:var(--soft);font-size:14px}
.line-mask{border-bottom:3px solid #00b8cc}
.line-reference{border-bottom:3px solid #4cc428}
.wider{overflow-x:auto;overflow-wrap:normal}
.wider td,.wider th{font-size:13px;padding-right:12px}
figure{margin:12px 0}figure img{max-width:100%;height:auto}
@media screen{.case{content-visibility:auto;contain-intrinsic-size:auto 640px}}
.swipe{display:none}
@media (max-width:760px){
 body{padding:16px 16px 48px}h1{font-size:24px}
 .both{grid-template-columns:minmax(0,1fr)}.card{flex-basis:40%}
 .swipe{display:block}.wider td,.wider th{white-space:nowrap}
 .measures,.measures tbody{display:block}
 .measures tr{display:grid;grid-template-columns:minmax(0,1fr) auto;padding:6px 0;
  border-bottom:1px solid var(--line)}
 .measures td{border:0;padding:0}.measures td:nth-child(3){grid-column:1/-1;
  display:flex;flex-wrap:wrap;gap:4px 12px;align-items:center}
 .list thead{position:absolute;width:1px;height:1px;overflow:hidden;
  clip-path:inset(50%)}
 .list,.list tbody{display:block}
 .list tr{display:flex;flex-wrap:wrap;gap:2px 16px;padding:10px 0;
  border-bottom:1px solid var(--line)}
 .list td{border:0;padding:0;text-align:left}
 .list td:empty{display:none}.list .wide{flex-basis:100%}
 .list [data-label]:not(:empty)::before{content:attr(data-label) " ";color:var(--soft);
  font-size:13px}
}
@media print{
 body{max-width:none;padding:0;font-size:12px}.up,.swipe{display:none}
 .case{break-inside:avoid}.picture{print-color-adjust:exact}
 .picture img{max-width:100%}a{color:inherit;text-decoration:none}
}
"""
# The largest picture that is taken in; what `pictures` draws is below a tenth of it.
_MOST_BYTES = 2_000_000
_PNG = b"\x89PNG\r\n\x1a\n"


def write_page(path: Path, title: str, body: Iterable[str]) -> None:
    """Writes the page piece by piece, atomically; `body` is markup, `title` text.

    The browser is told to refuse scripts, forms, frames and every address, so that
    text which slipped through unescaped could still do nothing.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    with (
        files.replacing(Path(path)) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.write(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        )
        for piece in body:
            file.write(piece + "\n")
        file.write("</body>\n</html>\n")


def text(value: object) -> str:
    """Any value as text that is safe inside an element or a quoted attribute.

    Control characters and the undecodable bytes of a file name become visible codes.
    """
    shown = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape("".join(_visible(letter) for letter in shown))


def name(value: object) -> str:
    """Text from outside, kept from changing the direction of what stands around it."""
    return f"<bdi>{text(value)}</bdi>"


def picture(
    path: Path, description: str, *, most_bytes: int = _MOST_BYTES
) -> str | None:
    """The <img> of a PNG file, bytes included; None if absent, too large or no PNG."""
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None
    if len(content) > most_bytes or content[:8] != _PNG or len(content) < 24:
        return None
    # Said beforehand, so that nothing moves while the page builds up.
    width, height = struct.unpack(">II", content[16:24])
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<img loading="lazy" width="{width}" height="{height}" '
        f'alt="{text(description)}" src="data:image/png;base64,{data}">'
    )


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """A list of terms (text) and what they mean (markup)."""
    return f"<dl>{''.join(f'<dt>{text(t)}</dt><dd>{m}</dd>' for t, m in entries)}</dl>"


def _visible(letter: str) -> str:
    if letter in "\n\t":
        return " "
    # Cc: control, Cf: invisible, such as a switch of the writing direction.
    odd = unicodedata.category(letter) in ("Cc", "Cf", "Cs")
    return f"\\u{ord(letter):04x}" if odd else letter
