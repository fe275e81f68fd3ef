"""Print what the model says of 10, 100 and 1,000 workers.

python -m benchmarks.scale [--seed N] [--quick] [--pictures FOLDER] [--without-real-runs]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.scale.costs import Costs, measure_costs
from benchmarks.scale.model import Cluster, checkpoints, exchange, links, recovery, skew
from benchmarks.scale.pictures import picture
from benchmarks.scale.reality import see

SIZES = (2, 10, 30, 100, 300, 1000)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A readable table."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for row in (header, *rows):
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def seconds(value: float) -> str:
    """With a unit that fits."""
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if value < factor * 1000:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} s"


def count(value: float) -> str:
    """With thousands as k and M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "


def compare(costs: Costs, cores: int) -> None:
    """Real checkpoints of small jobs beside the model's."""
    rows: list[tuple[str, ...]] = []
    for n in (2, 4, 8):
        seen = asyncio.run(see(n))
        share = min(1.0, cores / n)
        load = min(0.95, seen.rate * exchange(costs, Cluster(n, batch=500)).record / share)
        said = checkpoints(costs, Cluster(n, batch=500, load=load, cores_a_worker=share, workers_a_disk=n), seed=1)
        rows.append((str(n), str(seen.checkpoints), seconds(seen.seconds), seconds(said.whole[0]), seconds(said.whole[1])))
    table("real jobs on this machine, and the model: one checkpoint", ("workers", "taken", "real, mean", "model, median", "worst"), rows)


def show(costs: Costs, sizes: Sequence[int], seed: int, times: int) -> dict[str, str]:
    """All tables; answers the pictures by their names."""
    flows = [exchange(costs, Cluster(n)) for n in sizes]
    wider = [exchange(costs, Cluster(n, batch=max(4096, 64 * n))) for n in sizes]
    table(
        "exchange: batches of 4,096 records, and of 64 a receiver",
        ("workers", "records a frame", "exchange", "rec/s", "with 64: exchange", "rec/s", "Redis entries/s", "Redis busy"),
        [
            (
                str(n), f"{flow.records_in_frame:.0f}", f"{flow.share:.0%}", count(flow.rate), f"{wide.share:.0%}", count(wide.rate),
                count(wide.redis_entries), f"{wide.redis_entries * costs.redis_entry:.0%}",
            )
            for n, flow, wide in zip(sizes, flows, wider, strict=True)
        ],
    )  # fmt: skip
    taken = [checkpoints(costs, Cluster(n), seed=seed, times=times) for n in sizes]
    smaller = [checkpoints(costs, Cluster(n, buffer=max(256, 160_000 // n)), seed=seed, times=times) for n in sizes]
    table(
        "one checkpoint (load 0.7; 100,000 keys a worker, a tenth changed, every 10 s)",
        ("workers", "barriers out", "aligned", "worst", "complete", "written", "channels full: aligned", "with buffers / n"),
        [
            (
                str(n), seconds(c.spread[0]), seconds(c.alignment[0]), seconds(c.alignment[1]), seconds(c.whole[0]),
                f"{count(c.bytes_a_second)}B/s", seconds(c.pressed), seconds(s.pressed),
            )
            for n, c, s in zip(sizes, taken, smaller, strict=True)
        ],
    )  # fmt: skip
    recoveries = [recovery(costs, Cluster(n)) for n in sizes]
    table(
        "after a lost worker (noticed by silence; eight workers a host)",
        ("workers", "noticed", "started", "deployed", "restored", "caught up", "whole", "time lost at a failure per worker and month"),
        [
            (
                str(n), seconds(r.noticed), seconds(r.started), seconds(r.deployed), seconds(r.restored), seconds(r.replayed),
                seconds(r.whole), f"{r.lost:.3%}",
            )
            for n, r in zip(sizes, recoveries, strict=True)
        ],
    )  # fmt: skip
    skews = {exponent: [skew(n, exponent) for n in sizes] for exponent in (0.6, 0.8, 1.0)}
    table(
        "busiest worker against the mean, 100,000 keys by Zipf: ranges of key groups / best table / the largest key alone",
        ("workers", *(f"exponent {exponent}" for exponent in skews)),
        [(str(n), *(" / ".join(f"{part:.2f}" for part in found[at]) for found in skews.values())) for at, n in enumerate(sizes)],
    )
    table(
        "things that grow with the square",
        ("workers", "links", "channels", "bound of a worker's buffers (100 B records)", "with buffers / n", "owner busy with reports"),
        [
            (
                str(n), f"{links(Cluster(n))[0]:,}", f"{links(Cluster(n))[1]:,}", f"{count(n * 16_384 * 100.0)}B",
                f"{count(max(256, 160_000 // n) * n * 100.0)}B", f"{4 * n * costs.report:.1%}",
            )
            for n in sizes
        ],
    )  # fmt: skip
    return {
        "scale_throughput.svg": picture(
            "records a second, all workers", "/s", sizes,
            {
                "ideal": [n / costs.record for n in sizes],
                "batches of 64 a receiver": [flow.rate for flow in wider],
                "batches of 4,096": [flow.rate for flow in flows],
            },
        ),
        "scale_checkpoint.svg": picture(
            "seconds of one checkpoint", "s", sizes,
            {
                "load 0.7": [c.whole[0] for c in taken],
                "channels full": [c.pressed for c in taken],
                "full, buffers / n": [c.pressed for c in smaller],
            },
        ),
        "scale_recovery.svg": picture(
            "seconds after a lost worker", "s", sizes,
            {
                "whole": [r.whole for r in recoveries],
                "deploying": [r.deployed for r in recoveries],
                "starting": [r.started for r in recoveries],
            },
        ),
    }  # fmt: skip


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and no real runs: for tests")
    parser.add_argument("--pictures", type=Path, default=None, help="where to put the SVG files")
    options = parser.parse_args()
    costs = measure_costs()
    table("costs measured here", ("step", "value"), [(name, costly(name, value)) for name, value in costs.shown()])
    sizes = SIZES[:3] if options.quick else SIZES
    pictures = show(costs, sizes, options.seed, 5 if options.quick else 30)
    if not options.quick:
        compare(replace(costs), 2)
    if options.pictures is not None:
        for name, content in pictures.items():
            (options.pictures / name).write_text(content, encoding="utf-8")
            print(f"wrote {options.pictures / name}")


def costly(name: str, value: float) -> str:
    """The value of one cost, with its unit."""
    if name in ("changed_key", "manifest_part"):
        return f"{value:.0f} B"
    return f"{count(value)}/s" if name == "restored_keys" else seconds(value)


if __name__ == "__main__":
    main()
