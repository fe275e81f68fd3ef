"""The generated loop of a chain: Python source made from its steps, compiled once per shape.

Why source and not a C loop: since 3.11 CPython runs a Python-to-Python call inside one interpreter loop, so a loop
written in Python over the user's functions is as fast as one written by hand; calling them from C is not.

The loop is a generator over a list iterator; each `send` gives it the list to put results into. It yields 0.0 when its
output should be looked at (full, or a slice of an inner iterable is done) and a positive number of seconds when a record
waits for its next try. Functions are arguments, so equal shapes share one code object, and the source stands in
``linecache``: debuggers and tracebacks show it.
"""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Literal

__all__ = ["Loop", "StepShape", "build_loop", "failing_step", "slices"]

StepKind = Literal["map", "filter", "flat_map", "process", "each"]
Handling = Literal["raise", "drop", "retry"]

SMALL = 1024
"""A result list up to this long is taken whole; longer ones and lazy iterables are drained in slices."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """What the code of one step depends on; equal shapes share one compiled loop."""

    kind: StepKind
    handling: Handling = "raise"
    counted: bool = False
    takes_context: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """A compiled loop.

    ``function(it, out, room, counts, slices, f, h, c)``, with `rows` also ``numbers, kept``: `f`, `h`, `c` are sequences of the
    steps' functions, error handlers and contexts; the number of records that left step i is added to ``counts[i]`` where it is
    counted. `kept` gets, for each result, what `numbers` gives beside the record that it came from; a yield then takes both lists.
    """

    function: Callable[..., Generator[float, Any, None]]
    filename: str
    source: str
    step_of_line: Sequence[int]


class Writer:
    """Collects indented lines and which step each belongs to.

    With `rows` the loop also gathers, beside each result, the number of the record it came from.
    """

    def __init__(self, rows: bool = False) -> None:
        self.rows = rows
        self.lines: list[str] = []
        self.steps: list[int] = [-1]
        self.depth = 0
        self.step = -1

    def add(self, line: str) -> None:
        """Append one line at the present depth."""
        self.lines.append("    " * self.depth + line)
        self.steps.append(self.step)

    def put(self, value: str, condition: str = "") -> None:
        """A result goes out."""
        if condition:
            self.add(f"if {condition}:")
            self.depth += 1
        self.add(f"append({value})")
        if self.rows:
            self.add("keep(at)")
        if condition:
            self.depth -= 1

    def put_all(self, values: str) -> None:
        """A list of results of one record goes out."""
        self.add(f"extend({values})")
        if self.rows:
            self.add(f"keep_all([at] * len({values}))")

    def yielding(self, value: str) -> str:
        """Yield, and take the list to go on with: the caller keeps a full one and sends a fresh one, so nothing is copied."""
        if self.rows:
            return f"out, kept = yield {value}; append = out.append; extend = out.extend; keep = kept.append; keep_all = kept.extend"
        return f"out = yield {value}; append = out.append; extend = out.extend"

    @property
    def look(self) -> str:
        """Yield for the caller to look at what there is."""
        return self.yielding("0.0")


CACHE: dict[tuple[tuple[StepShape, ...], bool], Loop] = {}


def build_loop(shapes: tuple[StepShape, ...], *, rows: bool = False) -> Loop:
    """The loop for steps of these shapes; compiled at most once per process."""
    loop = CACHE.get((shapes, rows))
    if loop is None:
        loop = CACHE[shapes, rows] = compile_loop(shapes, rows)
    return loop


def compile_loop(shapes: tuple[StepShape, ...], rows: bool) -> Loop:
    """Write and compile the source."""
    w = Writer(rows)
    w.add(f"def chain(it, out, room, counts, slices, f, h, c{', numbers, kept' if rows else ''}):")
    w.depth = 1
    w.add("append = out.append")
    w.add("extend = out.extend")
    if rows:
        w.add("keep = kept.append")
        w.add("keep_all = kept.extend")
    for i, shape in enumerate(shapes):
        w.add(f"f{i} = f[{i}]")
        if shape.handling != "raise":
            w.add(f"h{i} = h[{i}]")
        if shape.takes_context:
            w.add(f"c{i} = c[{i}]")
        if shape.counted:
            w.add(f"n{i} = 0")
    w.add("try:")
    w.depth += 1
    w.add("for v, at in zip(it, numbers):" if rows else "for v in it:")
    w.depth += 1
    emitted = False
    trailers: list[tuple[int, str]] = []
    for i, shape in enumerate(shapes):
        w.step = i
        emitted = write_step(w, i, shape, last=i == len(shapes) - 1, trailers=trailers)
    if not emitted:
        w.put("v")
    for depth, line in reversed(trailers):
        w.depth = depth
        w.add(line)
    w.depth = 2
    w.step = -1
    w.add(f"if room < 0: {w.look}")
    w.depth = 1
    w.add("finally:")
    w.depth = 2
    w.add("pass")
    for i, shape in enumerate(shapes):
        if shape.counted:
            w.add(f"counts[{i}] += n{i}")
    source = "\n".join(w.lines) + "\n"
    filename = f"<sage chain {len(CACHE)}: {' -> '.join(shape.kind for shape in shapes[:6])}{' ...' if len(shapes) > 6 else ''}>"
    namespace: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), namespace)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return Loop(namespace["chain"], filename, source, tuple(w.steps))


def write_step(w: Writer, i: int, shape: StepShape, *, last: bool, trailers: list[tuple[int, str]]) -> bool:
    """Write one step; answers whether it has put its result into `out` itself."""
    argument = f"v, c{i}" if shape.takes_context else "v"
    if shape.kind == "map" and shape.handling == "raise":
        if last:
            w.put(f"f{i}({argument})")
            return True
        w.add(f"v = f{i}({argument})")
        return False
    if shape.kind == "filter" and shape.handling == "raise":
        if last and not shape.counted:
            w.put("v", f"f{i}(v)")
            return True
        w.add(f"if not f{i}(v): continue")
        count(w, i, shape)
        return False
    if shape.kind == "each" and shape.handling == "raise":
        w.add(f"f{i}(v)")
        count(w, i, shape)
        return True
    inner = shape.kind in ("flat_map", "process")
    call = f"f{i}({argument})"
    if shape.kind == "flat_map" and shape.handling != "raise":
        call = f"list({call})"
    if shape.kind == "process" and shape.handling != "raise":
        call = f"list(() if (r := {call}) is None else r)"
    target = "r" if shape.kind != "map" else "x"
    write_call(w, i, shape, target, call)
    if shape.kind == "map":
        w.add("v = x")
        return False
    if shape.kind == "filter":
        w.add("if not r: continue")
        count(w, i, shape)
        return False
    if not inner:
        count(w, i, shape)
        return True
    if shape.kind == "process" and shape.handling == "raise":
        w.add("if r is None: continue")
    if last:
        w.add(f"if (r.__class__ is list or r.__class__ is tuple) and len(r) <= {SMALL}:")
        w.depth += 1
        w.put_all("r")
        if shape.counted:
            w.add(f"n{i} += len(r)")
        w.add(f"if len(out) >= room: {w.look}")
        w.depth -= 1
        w.add("else:")
        w.depth += 1
        w.add("for r in slices(r):")
        w.depth += 1
        w.put_all("r")
        if shape.counted:
            w.add(f"n{i} += len(r)")
        w.add(w.look)
        w.depth -= 2
        return True
    # What is drained in slices may be endless and all filtered out further down: it must yield though nothing comes out.
    w.add(f"z{i} = (r.__class__ is not list and r.__class__ is not tuple) or len(r) > {SMALL}")
    w.add(f"for r{i} in slices(r) if z{i} else (r,):")
    w.depth += 1
    if shape.counted:
        w.add(f"n{i} += len(r{i})")
    trailers.append((w.depth, f"if z{i} or len(out) >= room: {w.look}"))
    w.add(f"for v in r{i}:")
    w.depth += 1
    return False


def write_call(w: Writer, i: int, shape: StepShape, target: str, call: str) -> None:
    """``target = call`` under the step's error handling; a dropped record continues the innermost loop."""
    if shape.handling == "raise":
        w.add(f"{target} = {call}")
        return
    if shape.handling == "drop":
        w.add("try:")
        w.add(f"    {target} = {call}")
        w.add("except Exception as e:")
        w.add(f"    h{i}(e, v, 1, it)")
        w.add("    continue")
        return
    w.add(f"t{i} = 0")
    w.add("while True:")
    w.add("    try:")
    w.add(f"        {target} = {call}")
    w.add("        break")
    w.add("    except Exception as e:")
    w.add(f"        t{i} += 1")
    w.add(f"        p{i} = h{i}(e, v, t{i}, it)")
    w.add(f"    if p{i} is None: break")
    w.add(f"    {w.yielding(f'p{i}')}")
    w.add(f"if t{i} and p{i} is None: continue")


def count(w: Writer, i: int, shape: StepShape) -> None:
    """Count a record that passed."""
    if shape.counted:
        w.add(f"n{i} += 1")


def slices(records: Iterable[Any]) -> Iterator[list[Any]]:
    """Drain an iterable in lists that each take about a millisecond, 1 to 1024 records long."""
    iterator = iter(records)
    size = 16
    while True:
        begun = time.perf_counter()
        part = list(islice(iterator, size))
        if not part:
            return
        yield part
        if time.perf_counter() - begun < 0.001:
            size = min(size * 2, SMALL)
        else:
            size = max(size // 2, 1)


def failing_step(loop: Loop, traceback: TracebackType | None) -> int:
    """Which step of the loop an exception came through; -1 if none."""
    step = -1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == loop.filename:
            step = loop.step_of_line[traceback.tb_lineno] if traceback.tb_lineno < len(loop.step_of_line) else -1
        traceback = traceback.tb_next
    return step
