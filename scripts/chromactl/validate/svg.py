"""Charts as inline SVG. Colours come from the page's CSS classes, so that they follow its colour scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH = 320
"""The width of charts in their own coordinates: about the pixels they are shown with, so that 12 px stay legible."""

_VALUES = 92
"""What is kept free at the end of a bar for its value."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 8, 22
_BAR = 14


def bars(rows: Sequence[tuple[str, float, float]], label: str) -> str:
    """Two horizontal bars a row, old and new, with their values."""
    most = max((max(old, new) for _, old, new in rows), default=0) or 1
    height = len(rows) * 58 + 4
    parts = []
    for number, (name, old, new) in enumerate(rows):
        top = number * 58
        short = shortened(name)
        whole = "" if short == name else f"<title>{escape(name)}</title>"
        parts.append(f'<text class="label" x="0" y="{top + 13}">{escape(short)}{whole}</text>')
        for line, (side, value) in enumerate((("old", old), ("new", new))):
            y = top + 19 + line * (_BAR + 3)
            width = max(1.0, value / most * (WIDTH - _VALUES))
            parts.append(f'<rect class="{side}" x="0" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
            parts.append(f'<text class="value" x="{width + 6:.1f}" y="{y + 11}">{value:,.0f}</text>')
    return _svg(height, parts, label)


def histogram(edges: Sequence[float], old: Sequence[int], new: Sequence[int], label: str, unit: str = "") -> str:
    """Counts between edges, old and new side by side. An empty side is left out."""
    height = 170
    sides = [(name, counts) for name, counts in (("old", old), ("new", new)) if any(counts)]
    most = max((max(counts) for _, counts in sides), default=0) or 1
    bins = len(edges) - 1
    wide = (WIDTH - _LEFT - _RIGHT) / bins
    floor = height - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>']
    for place, (name, counts) in enumerate(sides):
        thick = max(1.0, wide * 0.9 / len(sides))
        for number, count in enumerate(counts):
            if count:
                tall = max(1.5, count / most * (floor - _TOP - 14))
                x = _LEFT + number * wide + place * thick
                parts.append(
                    f'<rect class="{name}" x="{x:.1f}" y="{floor - tall:.1f}" width="{thick:.1f}" '
                    f'height="{tall:.1f}"><title>{edges[number]:.4g} to {edges[number + 1]:.4g}{unit}: '
                    f"{count:,} {name}</title></rect>"
                )
    for anchor, x, value in (
        ("start", _LEFT, edges[0]),
        ("middle", WIDTH / 2, (edges[0] + edges[-1]) / 2),
        ("end", WIDTH - _RIGHT, edges[-1]),
    ):
        words = f"{rounded(value, edges[-1] - edges[0])}{unit}"
        parts.append(f'<text class="value" text-anchor="{anchor}" x="{x}" y="{height - 6}">{words}</text>')
    parts.append(f'<text class="value" text-anchor="end" x="{WIDTH - _RIGHT}" y="12">most: {most:,}</text>')
    return _svg(height, parts, label)


def rounded(value: float, spread: float) -> str:
    """A value on an axis that is so long, with as many decimals as tell a hundredth of it apart."""
    decimals = max(0, 2 - math.floor(math.log10(spread))) if spread > 0 else 3
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shortened(name: str) -> str:
    """A name that fits the width of a chart; of a longer one its two ends."""
    if sum(map(_width, name)) <= WIDTH:
        return name
    half = len(name) // 2
    while sum(map(_width, name[:half] + "m" + name[-half:])) > WIDTH:
        half -= 1
    return f"{name[:half]}…{name[-half:]}"


def _width(letter: str) -> float:
    """Pixels at 12 px in the widest of the usual fonts (DejaVu Sans)."""
    if letter in "mwMW@…":
        return 12.0
    return 9.5 if letter.isupper() else 7.7


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    inner = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{inner}</svg>'
