"""Shapes of the status page's pictures, in the units of their SVG's view box (pure).

No picture holds text: it is stretched to the width of the page, and says in HTML what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMN_WIDTH, COLUMN_GAP = 10, 2
HEIGHT = 100.0
CURVE_WIDTH = 200.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a bar chart; y counts from the top."""

    x: int
    y: float
    width: int
    height: float


@dataclass(frozen=True, slots=True)
class Point:
    """A number at a time."""

    at_s: float
    value: int


def columns(values: Sequence[float]) -> tuple[Column, ...]:
    """One for each value; the highest is as high as the picture."""
    most = max(values, default=0) or 1
    width = COLUMN_WIDTH - COLUMN_GAP
    heights = [round(HEIGHT * value / most, 1) for value in values]
    return tuple(
        Column(number * COLUMN_WIDTH, round(HEIGHT - height, 1), width, height)
        for number, height in enumerate(heights)
    )


def curve(points: Sequence[Point]) -> str:
    """``x,y x,y …`` of a line from the first point to the last, the lowest value at the bottom."""
    first, last = points[0].at_s, points[-1].at_s
    lowest, highest = min(p.value for p in points), max(p.value for p in points)
    places = [
        (
            CURVE_WIDTH * _part(point.at_s, first, last),
            HEIGHT * (1 - _part(point.value, lowest, highest)),
        )
        for point in points
    ]
    if len(places) == 1:
        places.append((CURVE_WIDTH, places[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _part(value: float, low: float, high: float) -> float:
    """Where a value stands between two others, from 0 to 1."""
    return (value - low) / (high - low) if high > low else 0.0
