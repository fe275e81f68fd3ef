"""The peer, in a process of its own: queries in PyFlink's DataStream API, one JVM, parallelism 1, every function in Python.

Run by an interpreter that has PyFlink and nothing of ours, so nothing of ours is imported. Each line of the standard input asks for
one job: ``{"query": "q5", "events": "file", "rows": "file or nothing"}``; one line of the standard output answers it with its seconds,
or with its error. An event is a tuple that begins with its kind; pickled tuples are what PyFlink moves fastest without a schema.

Seconds count from the moment when the last of a job's functions was opened until the last of them was closed, so that neither the
start of tasks nor their end is held against it.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
import time
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, Duration, Time, Types, WatermarkStrategy
from pyflink.common.watermark_strategy import TimestampAssigner
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.base import Sink
from pyflink.datastream.functions import (
    AggregateFunction,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyedProcessFunction,
    MapFunction,
    ProcessWindowFunction,
    ReduceFunction,
)
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor
from pyflink.datastream.window import EventTimeSessionWindows, SlidingEventTimeWindows, TumblingEventTimeWindows
from pyflink.java_gateway import get_gateway

__all__ = ["JOBS", "main"]

Row = tuple[Any, ...]
Stream = Any

PERSON, AUCTION, BID = 0, 1, 2
SECOND = 1000
STATES = frozenset(("OR", "ID", "CA"))
NUMBERED = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
DISCARDING = "org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink"


class Timed(Function):  # type: ignore[misc, unused-ignore]
    """Notes when it is opened and closed."""

    marks = tempfile.gettempdir()

    def open(self, runtime_context: Any) -> None:
        """The task is there."""
        self.mark("open")

    def close(self) -> None:
        """The input has ended."""
        self.mark("close")

    def mark(self, what: str) -> None:
        """One line; all functions of a job write to the same file."""
        with open(self.marks, "a", encoding="ascii") as file:
            file.write(f"{what} {time.time()}\n")


class Where(Timed, FilterFunction):  # type: ignore[misc, unused-ignore]
    """A filter that calls nothing but the test."""

    def __init__(self, test: Callable[[Row], bool]) -> None:
        self.filter = test  # type: ignore[method-assign, unused-ignore]

    def filter(self, value: Row) -> bool:
        """Replaced by the test."""
        raise NotImplementedError


class Into(Timed, MapFunction):  # type: ignore[misc, unused-ignore]
    """A map that calls nothing but the function."""

    def __init__(self, function: Callable[[Row], Any]) -> None:
        self.map = function  # type: ignore[method-assign, unused-ignore]

    def map(self, value: Row) -> Any:
        """Replaced by the function."""
        raise NotImplementedError


class IntoMany(Timed, FlatMapFunction):  # type: ignore[misc, unused-ignore]
    """A flat map that calls nothing but the function."""

    def __init__(self, function: Callable[[Row], Sequence[Any]]) -> None:
        self.flat_map = function  # type: ignore[method-assign, unused-ignore]

    def flat_map(self, value: Row) -> Sequence[Any]:
        """Replaced by the function."""
        raise NotImplementedError


class EventTime(TimestampAssigner):  # type: ignore[misc, unused-ignore]
    """Every kind has its time in a place of its own."""

    def extract_timestamp(self, value: Row, record_timestamp: int) -> int:
        """Milliseconds since the epoch."""
        return int(value[7] if value[0] == PERSON else value[6])


def timed(stream: Stream) -> Stream:
    """With event time and 4 s of disorder."""
    strategy = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(4)).with_timestamp_assigner(EventTime())
    return stream.assign_timestamps_and_watermarks(strategy)


def bids(stream: Stream) -> Stream:
    """The bids alone."""
    return stream.filter(Where(lambda e: e[0] == BID))


# -- one event at a time ------------------------------------------------------------------------------------------------------


def q1(stream: Stream) -> Stream:
    """Prices in another currency."""
    return bids(stream).map(Into(lambda b: (b[1], b[2], 0.908 * b[3], b[6], b[7])))


def q2(stream: Stream) -> Stream:
    """Prices in some auctions."""
    return stream.filter(Where(lambda e: e[0] == BID and e[1] % 123 == 0)).map(Into(lambda b: (b[1], b[3])))


def priced(bid: Row) -> Row:
    """The row of q14."""
    hour = bid[6] // 3_600_000 % 24
    part = "dayTime" if 8 <= hour <= 18 else "nightTime" if hour <= 6 or hour >= 20 else "otherTime"
    return (bid[1], bid[2], 0.908 * bid[3], part, bid[6], bid[7], bid[7].count("c"))


def q14(stream: Stream) -> Stream:
    """Bids of a middling price."""
    return stream.filter(Where(lambda e: e[0] == BID and 1_000_000 < 0.908 * e[3] < 50_000_000)).map(Into(priced))


def channel_of(bid: Row) -> list[Row]:
    """The bid with its channel's number, if it has one."""
    number = NUMBERED.get(bid[4].lower())
    if number is None:
        _, found, rest = bid[5].partition("&channel_id=")
        if not found:
            return []
        number = rest.partition("&")[0]
    return [(*bid[1:5], number)]


def q21(stream: Stream) -> Stream:
    """Bids with their channel's number."""
    return bids(stream).flat_map(IntoMany(channel_of))


def q22(stream: Stream) -> Stream:
    """Bids with the folders of their address."""
    return bids(stream).map(Into(lambda b: (*b[1:5], *b[5].split("/", 6)[3:6])))


# -- keyed state --------------------------------------------------------------------------------------------------------------


class Meeting(Timed, KeyedProcessFunction):  # type: ignore[misc, unused-ignore]
    """Records wait for the one record that they belong to. Remembered of that: what is emitted; nothing if it is not wanted."""

    def open(self, runtime_context: Any) -> None:
        """The one, and those that wait."""
        self.one = runtime_context.get_state(ValueStateDescriptor("one", Types.PICKLED_BYTE_ARRAY()))
        self.waiting = runtime_context.get_list_state(ListStateDescriptor("waiting", Types.PICKLED_BYTE_ARRAY()))
        super().open(runtime_context)

    def wanted(self, value: Row) -> Row | None:
        """What is emitted of the one, () if it is not wanted; None for the others."""
        raise NotImplementedError

    def pair(self, one: Row, value: Row) -> Row:
        """What is emitted of both."""
        raise NotImplementedError

    def process_element(self, value: Row, ctx: Any) -> Iterator[Row]:
        """Whichever of them."""
        of_the_one = self.wanted(value)
        if of_the_one is None:
            one = self.one.value()
            if one is None:
                self.waiting.add(value)
            elif one:
                yield self.pair(one, value)
            return
        self.one.update(of_the_one)
        if of_the_one:
            for other in self.waiting.get() or ():
                yield self.pair(of_the_one, other)
        self.waiting.clear()


class SellersOf(Meeting):
    """A person and the auctions they sell."""

    def wanted(self, value: Row) -> Row | None:
        """Persons in the three states."""
        if value[0] == AUCTION:
            return None
        return (value[2], value[5], value[6]) if value[6] in STATES else ()

    def pair(self, one: Row, value: Row) -> Row:
        """The person's columns and the auction."""
        return (*one, value[1])


class Offered(Meeting):
    """An auction in category 10 and its bids."""

    def wanted(self, value: Row) -> Row | None:
        """Auctions in the category."""
        if value[0] == BID:
            return None
        return value[2:] if value[9] == 10 else ()

    def pair(self, one: Row, value: Row) -> Row:
        """The bid's columns and the auction's."""
        return (*value[1:], *one)


def q3(stream: Stream) -> Stream:
    """Sellers in three states and their auctions in category 10."""
    concerned = stream.filter(Where(lambda e: e[0] == PERSON or (e[0] == AUCTION and e[9] == 10)))
    return concerned.key_by(lambda e: e[1] if e[0] == PERSON else e[8], key_type=Types.LONG()).process(SellersOf())


def q20(stream: Stream) -> Stream:
    """Bids for auctions in category 10, with their auction."""
    return stream.filter(Where(lambda e: e[0] != PERSON)).key_by(lambda e: e[1], key_type=Types.LONG()).process(Offered())


class Later(Timed, ReduceFunction):  # type: ignore[misc, unused-ignore]
    """Of two bids at the same time the one that came later."""

    def reduce(self, value1: Row, value2: Row) -> Row:
        """The later one."""
        return value2 if value2[6] >= value1[6] else value1


def q18(stream: Stream) -> Stream:
    """The latest bid of each bidder for each auction, an update for each bid."""
    return bids(stream).key_by(lambda b: (b[2], b[1])).reduce(Later())


class TopTen(Timed, KeyedProcessFunction):  # type: ignore[misc, unused-ignore]
    """The ten dearest bids of an auction; emits the ranks that changed."""

    def open(self, runtime_context: Any) -> None:
        """The ten, sorted, lie in one value."""
        self.top = runtime_context.get_state(ValueStateDescriptor("top", Types.PICKLED_BYTE_ARRAY()))
        super().open(runtime_context)

    def process_element(self, value: Row, ctx: Any) -> Iterator[Row]:
        """Where it comes in, everything below moves down."""
        rows = list(self.top.value() or ())
        if len(rows) == 10 and rows[9][0] >= value[3]:
            return
        entry = (value[3], value[2], value[6])
        insort(rows, entry, key=lambda row: -row[0])
        del rows[10:]
        self.top.update(tuple(rows))
        for rank in range(rows.index(entry), len(rows)):
            row = rows[rank]
            yield (value[1], rank + 1, row[1], row[0], row[2])


def q19(stream: Stream) -> Stream:
    """The ten dearest bids of each auction, ranked."""
    return bids(stream).key_by(lambda b: b[1], key_type=Types.LONG()).process(TopTen())


# -- windows ------------------------------------------------------------------------------------------------------------------


class Count(AggregateFunction):  # type: ignore[misc, unused-ignore]
    """How many."""

    def create_accumulator(self) -> int:
        """None yet."""
        return 0

    def add(self, value: Row, accumulator: int) -> int:
        """One more."""
        return accumulator + 1

    def get_result(self, accumulator: int) -> int:
        """The count."""
        return accumulator

    def merge(self, acc_a: int, acc_b: int) -> int:
        """Of two sessions."""
        return acc_a + acc_b


class Highest(AggregateFunction):  # type: ignore[misc, unused-ignore]
    """All records with the highest value in a column."""

    def __init__(self, column: int) -> None:
        self.column = column

    def create_accumulator(self) -> list[Row]:
        """None yet."""
        return []

    def add(self, value: Row, accumulator: list[Row]) -> list[Row]:
        """Ties stay."""
        column = self.column
        if not accumulator or value[column] > accumulator[0][column]:
            return [value]
        if value[column] == accumulator[0][column]:
            accumulator.append(value)
        return accumulator

    def get_result(self, accumulator: list[Row]) -> list[Row]:
        """The records."""
        return accumulator

    def merge(self, acc_a: list[Row], acc_b: list[Row]) -> list[Row]:
        """Not asked for: these windows do not merge."""
        raise NotImplementedError


class Registration(AggregateFunction):  # type: ignore[misc, unused-ignore]
    """The name, once registered, and whether an auction has been opened."""

    def create_accumulator(self) -> Row:
        """Nothing yet."""
        return ("", False)

    def add(self, value: Row, accumulator: Row) -> Row:
        """Of either kind."""
        return (value[2], accumulator[1]) if value[0] == PERSON else (accumulator[0], True)

    def get_result(self, accumulator: Row) -> Row:
        """Both."""
        return accumulator

    def merge(self, acc_a: Row, acc_b: Row) -> Row:
        """Not asked for: these windows do not merge."""
        raise NotImplementedError


class OfWindow(Timed, ProcessWindowFunction):  # type: ignore[misc, unused-ignore]
    """Brings a result, its key and its window together in a row."""

    def __init__(self, to_rows: Callable[[Any, Any, Any], Sequence[Row]]) -> None:
        self.to_rows = to_rows

    def process(self, key: Any, context: Any, elements: Any) -> Sequence[Row]:
        """One result a window."""
        return [row for value in elements for row in self.to_rows(key, value, context.window())]


class NotOutbid(Where):
    """Bids that may be the dearest of their ten seconds: the same saving as in our program."""

    def __init__(self) -> None:
        self.best: dict[int, int] = {}

    def filter(self, value: Row) -> bool:
        """By window; forgets the windows of long ago."""
        if value[0] != BID:
            return False
        window = value[6] // 10_000
        if value[3] < self.best.get(window, 0):
            return False
        self.best[window] = value[3]
        if len(self.best) > 16:
            self.best = dict(sorted(self.best.items())[-8:])
        return True


def q5(stream: Stream) -> Stream:
    """The auctions with most bids in each ten seconds, every two: counts by auction, then the highest of each end."""
    hops = SlidingEventTimeWindows.of(Time.seconds(10), Time.seconds(2))
    with_start = OfWindow(lambda key, count, window: [(window.start, key, count)])
    counts = timed(bids(stream)).key_by(lambda b: b[1], key_type=Types.LONG()).window(hops).aggregate(Count(), with_start)
    return counts.window_all(TumblingEventTimeWindows.of(Time.seconds(2))).aggregate(Highest(2)).flat_map(IntoMany(lambda rows: rows))


def q7(stream: Stream) -> Stream:
    """The dearest bids of each ten seconds."""
    dearest = timed(stream.filter(NotOutbid())).window_all(TumblingEventTimeWindows.of(Time.seconds(10))).aggregate(Highest(3))
    return dearest.flat_map(IntoMany(lambda best: [(b[1], b[3], b[2], b[6], b[7]) for b in best]))


def q8(stream: Stream) -> Stream:
    """Who opens an auction in the ten seconds of their registration."""
    others = timed(stream.filter(Where(lambda e: e[0] != BID)))
    keyed = others.key_by(lambda e: e[1] if e[0] == PERSON else e[8], key_type=Types.LONG())
    both = OfWindow(lambda key, known, window: [(key, known[0], window.start)] if known[0] and known[1] else [])
    return keyed.window(TumblingEventTimeWindows.of(Time.seconds(10))).aggregate(Registration(), both)


def q11(stream: Stream) -> Stream:
    """Bids of each bidder without a pause of ten seconds."""
    with_bounds = OfWindow(lambda key, count, window: [(key, count, window.start, window.end)])
    keyed = timed(bids(stream)).key_by(lambda b: b[2], key_type=Types.LONG())
    return keyed.window(EventTimeSessionWindows.with_gap(Time.seconds(10))).aggregate(Count(), with_bounds)


JOBS: dict[str, Callable[[Stream], Stream]] = {
    "q0": bids, "q1": q1, "q2": q2, "q3": q3, "q5": q5, "q7": q7, "q8": q8, "q11": q11,
    "q14": q14, "q18": q18, "q19": q19, "q20": q20, "q21": q21, "q22": q22,
}  # fmt: skip
"""Those that the DataStream API expresses about as briefly as ours."""


# -- the process --------------------------------------------------------------------------------------------------------------


def environment() -> Any:
    """A local one, as fast as settings make it: functions inside the JVM, one task, objects not copied, no checkpoints."""
    configuration = Configuration()
    configuration.set_string("python.execution-mode", "thread")  # two to ten times as fast as its processes, state most of all
    configuration.set_string("pipeline.object-reuse", "true")
    made = StreamExecutionEnvironment.get_execution_environment(configuration)
    made.set_parallelism(1)
    made.set_python_executable(sys.executable)
    return made


def run_job(name: str, events: Sequence[Row], rows: str) -> dict[str, float]:
    """Run one query; its records go to a file, or, where only time counts, to a sink in the JVM that drops them."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks"
        Timed.marks = str(marks)
        env = environment()
        results = JOBS[name](env.from_collection(list(events)))
        begun = time.time()
        if rows:
            with results.execute_and_collect() as found:
                Path(rows).write_bytes(pickle.dumps([tuple(record) for record in found]))
        else:
            results.sink_to(Sink(get_gateway().jvm.java.lang.Class.forName(DISCARDING).getConstructor(None).newInstance(None)))
            env.execute(name)
        ended = time.time()
        noted = [line.split() for line in marks.read_text(encoding="ascii").splitlines()]
        opened = max(float(at) for what, at in noted if what == "open")
        closed = max((float(at) for what, at in noted if what == "close"), default=ended)
        return {"seconds": closed - opened, "job_seconds": ended - begun}


def main() -> None:
    """Answer one question after the other until there are none."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the JVM prints is no answer
    # The interpreter inside the JVM is found as "python".
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    loaded: tuple[str, list[Row]] = ("", [])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["events"] != loaded[0]:
                loaded = (asked["events"], pickle.loads(Path(asked["events"]).read_bytes()))
            answer: dict[str, Any] = dict(run_job(asked["query"], loaded[1], asked["rows"]))
        except Exception as error:
            answer = {"error": f"{asked['query']}: {error}"[:4000]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
