"""pattern on a keyed stream: events wait until event time has passed them, then go through the pattern's automaton in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.pattern import Pattern
from sage_actor.dataflow.policies import Retry
from sage_actor.dataflow.process_functions import KeyedContext
from sage_actor.errors import GraphError
from sage_actor.operators.keyed_call_stage import KeyedCallStage
from sage_actor.operators.pattern_matcher import Outcome, PatternMatcher, Place, Run, events_of
from sage_actor.operators.stages import Emit

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["PatternStage"]

Answer = tuple[Any, dict[str, list[Any]]]
"""The key, and the events by the names of their steps."""


class PatternStage(KeyedCallStage):
    """Emits ``(key, {step name: events})`` per match, at the timestamp of its last event (or of the end of its time).

    State, all by key: events that wait for their time, by timestamp; events that some beginning holds, each once; the
    beginnings. There is a timer for each instant at which something waits or a beginning ends, so handling order follows from
    the timestamps alone. An event behind the watermark is late: counted, and put aside if there is a tag for it.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        options = operators[0].options
        pattern: Pattern[Any] = options["pattern"]
        self.matcher = PatternMatcher(pattern)
        self.timeouts: OutputTag[Any] | None = options.get("timeouts")
        self.late: OutputTag[Any] | None = options.get("late")

    async def open(self) -> None:
        await self.open_state()
        self.on_timer = self._handle
        self.waiting = self.state.nested("waiting")
        self.held = self.state.nested("held")
        self.runs = self.state.table("runs")

    async def process(self, batch: Batch, emit: Emit) -> None:
        if batch.timestamps is None and len(batch):
            raise GraphError(
                f"operator {self.operators[0].name!r}: a pattern needs event time, but its records have no timestamps; "
                "call assign_timestamps(...) on the stream before"
            )
        await self.run(self._take, batch, emit)

    def _take(self, event: Any, context: KeyedContext) -> None:
        """One event: it waits for its time."""
        time = context.timestamp
        assert time is not None
        if time <= context.watermark:
            self.counters[0].late += 1
            if self.late is not None:
                context.output(self.late, event)
            return
        alike = self.waiting.get(context.key, time)
        self.waiting.put(context.key, time, [event] if alike is None else [*alike, event])
        if alike is None:
            context.timers.event_time(time)

    def _handle(self, time: int, context: KeyedContext) -> list[Answer]:
        """Event time has reached an instant at which something waits, or the time of a beginning is over."""
        key = context.key
        runs: list[Run] = [Run(*saved) for saved in self.runs.get(key, ())]
        answers: list[Answer] = []
        events = self.waiting.get(key, time, ())
        if events:
            self.waiting.delete(key, time)
        for number, event in enumerate(events):
            runs = self._feed(key, runs, (time, number), event, context, answers)
        outcome, nothing = self.matcher.expire(runs, time)
        answers.extend(self._answer(key, run) for run in outcome.matches)
        if self.timeouts is not None:
            for run in nothing:
                context.output(self.timeouts, self._answer(key, run))
        self._keep(key, outcome.runs)
        return answers

    def _feed(self, key: Any, runs: list[Run], place: Place, event: Any, context: KeyedContext, answers: list[Answer]) -> list[Run]:
        def event_at(asked: Place) -> Any:
            return event if asked == place else self.held.get(key, asked)

        outcome = self._judge(runs, place, event, event_at)
        if outcome is None:
            return runs
        answers.extend((key, events_of(self.matcher.steps, run, event_at)) for run in outcome.matches)
        if any(run.places[-1] == place for run in outcome.runs):
            self.held.put(key, place, event)
        span = self.matcher.span
        if span is not None and any(run.places[0] == place for run in outcome.runs):
            context.timers.event_time(place[0] + span)
        return outcome.runs

    def _judge(self, runs: list[Run], place: Place, event: Any, event_at: Callable[[Place], Any]) -> Outcome | None:
        """Ask the user's conditions; by the policy, an event at which one raises may count as not seen.

        There is no pausing in the middle of an instant, so tries follow one another at once.
        """
        faults = self.faults
        policy = self.operators[0].on_error
        most = policy.attempts if isinstance(policy, Retry) else 1
        for tries in range(1, most + 1):
            try:
                return self.matcher.feed(runs, place, event, event_at)
            except Exception as error:  # noqa: BLE001 - the user's condition: its policy decides
                faults.settle(0, error, 0, event, tries)
        return None

    def _answer(self, key: Any, run: Run) -> Answer:
        return key, events_of(self.matcher.steps, run, lambda place: self.held.get(key, place))

    def _keep(self, key: Any, runs: list[Run]) -> None:
        """Save the beginnings, and forget events that none of them holds any more."""
        if runs:
            self.runs.put(key, [tuple(run) for run in runs])
        else:
            self.runs.delete(key)
        needed = {place for run in runs for place in run.places}
        for place in [place for place, _ in self.held.scan(key) if place not in needed]:
            self.held.delete(key, place)
