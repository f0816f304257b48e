"""Bars with their spread as a self-contained SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 270, 110, 26, 44  # pixels
OURS, OTHERS = "#2563a8", "#8a8f98"


class Bar(NamedTuple):
    """A median between the least and the most."""

    name: str
    median: float
    least: float
    most: float
    ours: bool


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Return the SVG's text; bars begin at zero, a line shows the spread. Raises ValueError without bars."""
    scale = (WIDTH - LEFT - RIGHT) / max(bar.most for bar in bars)
    height = TOP + ROW * len(bars) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-weight="bold" fill="#1b1f24">{escape(title)}</text>',
    ]
    for place, bar in enumerate(bars):
        top = TOP + ROW * place
        middle, end = top + ROW / 2, LEFT + bar.most * scale
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end" fill="#1b1f24">{escape(bar.name)}</text>',
            f'<rect x="{LEFT}" y="{top + 4}" width="{bar.median * scale:.1f}" height="{ROW - 8}" '
            f'fill="{OURS if bar.ours else OTHERS}"/>',
            f'<line x1="{LEFT + bar.least * scale:.1f}" x2="{end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
            'stroke="#1b1f24"/>',
            f'<text x="{end + 8:.1f}" y="{middle + 4:.1f}" fill="#1b1f24">{bar.median:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
