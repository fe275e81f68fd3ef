"""Lines over the number of workers, as small SVG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["picture"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 260, 64, 40, 34
COLOURS = ("#1b6ca8", "#d1495b", "#3d8361", "#8d6a9f", "#b5651d")


def picture(title: str, unit: str, workers: Sequence[int], lines: Mapping[str, Sequence[float]]) -> str:
    """One picture; both axes are logarithmic."""
    values = [value for line in lines.values() for value in line if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    first, last = math.log10(workers[0]), math.log10(workers[-1])

    def x(n: float) -> float:
        return LEFT + (math.log10(n) - first) / (last - first) * (WIDTH - LEFT - 20)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(max(value, 10.0**low)) - low) / (high - low) * (HEIGHT - BOTTOM - TOP - 16)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="16" font-size="13">{title}</text>',
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} {unit}</text>')
    parts += [f'<text x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{n:,}</text>' for n in workers]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">workers</text>')
    for line, colour in zip(lines.values(), COLOURS, strict=False):
        path = "L".join(f"{x(n):.1f} {y(value):.1f}" for n, value in zip(workers, line, strict=True))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    names = list(zip(lines, COLOURS, strict=False))
    for place, (name, colour) in enumerate(names):
        at = LEFT + place * (WIDTH - LEFT) / len(names)
        parts.append(f'<text x="{at:.0f}" y="31" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
