"""What a benchmark answers, as one JSON object and as one row of the table."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Result", "row", "show"]


@dataclass(slots=True)
class Result:
    """One case. `ours`, `floor` and `peer` are in `unit`; ratios are medians of pairs taken in one round.

    `met` is None where there is no target, or where a short run would be judged. `note` says what the figures leave out;
    `detail` holds further figures: each event loop, the second floor, percentiles.
    """

    case: str
    unit: str
    ours: float | None
    floor: float | None = None
    peer: float | None = None
    ratio_floor: float | None = None
    ratio_peer: float | None = None
    target: str | None = None
    met: bool | None = None
    note: str = ""
    detail: dict[str, object] = field(default_factory=lambda: dict[str, object]())

    def as_dict(self) -> dict[str, object]:
        """The JSON object; figures rounded to four digits."""
        return {
            "case": self.case,
            "unit": self.unit,
            "ours": rounded(self.ours),
            "floor": rounded(self.floor),
            "peer": rounded(self.peer),
            "ratio_floor": rounded(self.ratio_floor),
            "ratio_peer": rounded(self.ratio_peer),
            "target": self.target,
            "met": self.met,
            "note": self.note,
            "detail": rounded(self.detail),
        }


def rounded(value: object) -> object:
    """Four significant digits, in nested mappings and lists too."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return value


def figure(value: object) -> str:
    """A number that is readable at a glance."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:.3g}"


HEADER = ("case", "unit", "floor", "peer", "ours", "x floor", "x peer", "met", "target")
WIDTHS = (16, 8, 9, 9, 9, 8, 8, 5, 0)


def row(result: dict[str, object] | None = None) -> str:
    """One line of the table; the heading if there is no result."""
    if result is None:
        cells: tuple[str, ...] = HEADER
    else:
        met = {True: "yes", False: "NO", None: "-"}[bool(result["met"]) if result["met"] is not None else None]
        cells = (
            str(result["case"]),
            str(result["unit"]),
            *(figure(result[key]) for key in ("floor", "peer", "ours", "ratio_floor", "ratio_peer")),
            met,
            str(result["target"] or "(none yet)"),
        )
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def show(result: dict[str, object]) -> str:
    """One case for people: its row, its note and every further figure."""
    lines = [row(), row(result)]
    if result["note"]:
        lines.append(f"  {result['note']}")
    detail = result["detail"]
    if isinstance(detail, dict):
        lines.extend(f"  {key}: {value}" for key, value in detail.items())
    return "\n".join(lines)
