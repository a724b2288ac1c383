"""Tiny drawings (SVG markup) that say where a number lies."""

import math
from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT = 170, 20
_EDGE = 8  # left free, so that a mark at the end is whole
_MARK, _TICK, _LINE = "#c2410c", "#57606a", "#d5dae0"


def place(value: float, values: Sequence[float], *, higher_is_better: bool) -> str:
    """A case's value among those of other cases: a tick each, worse left, better right.

    A value outside their range sits at the edge as an arrow. All positive values that
    span more than a factor of 30 are on a logarithmic scale. `values` must hold a
    finite number.
    """
    known = np.sort([v for v in values if math.isfinite(v)])
    scale = _scale(known, higher_is_better)
    ticks = "".join(
        f'<path d="M{scale(v):.1f} 4v12" stroke="{_TICK}" stroke-opacity=".55"/>'
        for v in known
    )
    inside = known[0] <= value <= known[-1]
    mark = _dot(scale(value)) if inside else _arrow(scale(value))
    return _drawing(ticks + mark, rank_text(value, values, higher_is_better))


def rank_text(value: float, values: Sequence[float], higher_is_better: bool) -> str:
    """For people: "better than 3 of 13"; equal values are not better."""
    known = [v for v in values if math.isfinite(v)]
    sign = 1 if higher_is_better else -1
    return f"better than {sum(sign * v < sign * value for v in known)} of {len(known)}"


def dice_bar(predicted: float | None, lower: float | None, dice: float | None) -> str:
    """Dice from 0 to 1: a bar from the lower bound up, the prediction, the truth."""
    parts, said = [], []
    if lower is not None:
        start = _along(lower)
        parts.append(
            f'<rect x="{start:.1f}" y="6" width="{_along(1.0) - start:.1f}" height="8" '
            'fill="#f3c9ae"/>'
        )
        said.append(f"lower bound {lower:.2f}")
    if predicted is not None:
        parts.append(_dot(_along(predicted)))
        said.append(f"predicted {predicted:.2f}")
    if dice is not None:
        x = _along(dice)
        parts.append(f'<path d="M{x:.1f} 3l5 7-5 7-5-7z" fill="#1f4e9c"/>')
        said.append(f"true {dice:.2f}")
    return _drawing("".join(parts), ", ".join(said) + " of 1")


def _scale(known: np.ndarray, higher_is_better: bool):
    logarithmic = known[0] > 0 and known[-1] > 30 * known[0]
    low, high = (np.log(known[[0, -1]]) if logarithmic else known[[0, -1]]).tolist()

    def position(value: float) -> float:
        if logarithmic:
            value = math.log(value) if value > 0 else -math.inf
        share = (value - low) / (high - low) if high > low else 0.5
        if high == low and value != low:
            share = float(value > low)
        share = min(max(share, 0.0), 1.0)
        return _along(share if higher_is_better else 1.0 - share)

    return position


def _along(share: float) -> float:
    return _EDGE + min(max(share, 0.0), 1.0) * (_WIDTH - 2 * _EDGE)


def _dot(x: float) -> str:
    return f'<circle cx="{x:.1f}" cy="10" r="5" fill="{_MARK}"/>'


def _arrow(x: float) -> str:
    tip = -7 if x < _WIDTH / 2 else 7
    return f'<path d="M{x:.1f} 4v12l{tip}-6z" fill="{_MARK}"/>'


def _drawing(content: str, said: str) -> str:
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{said}"><path d="M{_EDGE} 10h{_WIDTH - 2 * _EDGE}" '
        f'stroke="{_LINE}" stroke-width="2"/>{content}</svg>'
    )
