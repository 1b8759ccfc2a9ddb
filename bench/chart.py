"""Horizontal bars as SVG. Colours follow the reader's light or dark scheme; every bar says its value in text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES = 940, 400, 120
ROW, BAR, TITLE, GAP = 26, 16, 34, 18
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ours { fill: #1a7f5a } .theirs { fill: #8c959f } .mark { stroke: #cf222e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #3fb98a } .theirs { fill: #6e7681 } .mark { stroke: #ff7b72 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name at the left, `text` at its end."""

    label: str
    value: float
    text: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale that begins at 0, with a line at `mark`."""

    title: str
    bars: Sequence[Bar]
    mark: float | None = None
    mark_label: str = ""


def svg(panels: Sequence[Panel]) -> str:
    """The panels, one below the other."""
    height = sum(TITLE + ROW * len(panel.bars) + GAP for panel in panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in panels))}</title>",
        f"<style>{_STYLE}</style>",
    ]
    top = 0
    for panel in panels:
        lines += _panel(panel, top)
        top += TITLE + ROW * len(panel.bars) + GAP
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    largest = max([bar.value for bar in panel.bars] + [panel.mark or 0.0])
    scale = (WIDTH - LABELS - VALUES) / largest if largest > 0 else 0.0
    lines = [_text(0, top + 20, panel.title, "title")]
    for number, bar in enumerate(panel.bars):
        y = top + TITLE + ROW * number
        kind, length = "ours" if bar.ours else "theirs", bar.value * scale
        lines += [
            _text(0, y + 13, bar.label),
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            _text(LABELS + length + 6, y + 13, bar.text),
        ]
    if panel.mark is not None:
        x, bottom = LABELS + panel.mark * scale, top + TITLE + ROW * len(panel.bars) - ROW + BAR + 4
        lines.append(f'<line class="mark" x1="{x:.1f}" y1="{top + TITLE - 6}" x2="{x:.1f}" y2="{bottom}"/>')
        lines.append(_text(x + 4, top + 20, f"{panel.mark_label} {panel.mark:.2f}"))
    return lines


def _text(x: float, y: float, text: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
