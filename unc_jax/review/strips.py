"""Places on the strips of a report, which templates/macros.html draws."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Of the drawings in macros.html, pixels; the edge is free for a mark at the end.
_WIDTH, _EDGE = 170, 8


class Place(NamedTuple):
    """A value among those of other cases, as macros.strip draws it.

    Attributes:
      ticks: of the other cases, pixels from the left; worse left, better right.
      mark: of the value itself, at the edge where it is beyond all others.
      beyond: -1 left of them, 1 right of them, 0 among them.
      words: e.g. "better than 3 of 13"; equal values are not better.
    """

    ticks: list[float]
    mark: float
    beyond: int
    words: str


def place_among(value: float, known: Sequence[float], sign: int) -> Place:
    """Returns the place of a value among `known` ones, finite and at least one.

    sign: 1 where more is better, -1 where less is. All positive values that span more
    than a factor of 30 are on a logarithmic scale.
    """
    low, high = min(known), max(known)
    logarithmic = low > 0 and high > 30 * low

    def at(one: float) -> float:
        if not low <= one <= high or low == high:
            share = 0.5 + 0.5 * np.sign(one - low)
        elif logarithmic:
            share = math.log(one / low) / math.log(high / low)
        else:
            share = (one - low) / (high - low)
        return along(share if sign > 0 else 1 - share)

    better = sum(sign * one < sign * value for one in known)
    outside = int(value > high) - int(value < low)
    words = f"better than {better} of {len(known)}"
    return Place([at(one) for one in sorted(known)], at(value), sign * outside, words)


def along(share: float) -> float:
    """Returns the place of a share (0 ... 1) along a drawing, pixels from its left."""
    return _EDGE + min(max(share, 0.0), 1.0) * (_WIDTH - 2 * _EDGE)
