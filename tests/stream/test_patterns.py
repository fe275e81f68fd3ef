"""pattern on keyed streams, end to end."""

from __future__ import annotations

import pytest

import sage_actor as sage
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.pattern import Pattern
from sage_actor.dataflow.watermarks import BoundedDisorder

Payment = tuple[str, int, int]
"""Card, time in ms, amount."""
PAYMENTS: list[Payment] = [
    ("a", 1_000, 1),
    ("b", 1_500, 2),
    ("a", 3_000, 900),
    ("a", 2_000, 2),  # out of order: between the two before
    ("b", 4_000, 800),
    ("c", 5_000, 1),
    ("c", 70_000, 999),
    ("a", 70_500, 1),
    ("a", 1_100, 1),  # hopelessly late
]
FRAUD: Pattern[Payment] = (
    Pattern.begin("test").where(lambda p: p[2] < 10).one_or_more().next("theft").where(lambda p: p[2] > 500).within("1m")
)
LATE: OutputTag[Payment] = OutputTag("late")
UNFINISHED: OutputTag[tuple[str, dict[str, list[Payment]]]] = OutputTag("unfinished")


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.asyncio
async def test_matches_selected_timeouts_and_late_events(parallelism: int) -> None:
    async with sage.Environment("fraud") as env:
        matches = (
            env.from_collection(PAYMENTS)
            .assign_timestamps(lambda p: p[1], BoundedDisorder("2s"))
            .key_by(lambda p: p[0])
            .pattern(FRAUD, parallelism=parallelism)
            .timeout_output(UNFINISHED)
            .late_output(LATE)
        )
        found = matches.select(lambda card, match: (card, [p[2] for p in match["test"]], match["theft"][0][2])).collect()
        unfinished, late = matches.side_output(UNFINISHED).collect(), matches.side_output(LATE).collect()
        await env.execute()
    assert sorted(found) == [("a", [1, 2], 900), ("a", [2], 900), ("b", [2], 800)]
    assert sorted((card, match["test"][0][1]) for card, match in unfinished) == [("a", 70_500), ("c", 5_000)]
    assert list(late) == [("a", 1_100, 1)]


@pytest.mark.asyncio
async def test_past_last_gives_matches_that_do_not_overlap(backend: str) -> None:
    pattern: Pattern[int] = Pattern.begin("one", skip="past_last").then("two")
    async with sage.Environment("pairs", backend=backend) as env:
        found = env.from_collection(range(7)).assign_timestamps(int).key_by(lambda n: "all").pattern(pattern).collect()
        await env.execute()
    assert [match for _, match in found] == [{"one": [n], "two": [n + 1]} for n in (0, 2, 4)]


@pytest.mark.asyncio
async def test_what_makes_no_sense_is_refused_when_it_is_described() -> None:
    env = sage.Environment("refused")
    keyed = env.from_collection([1]).assign_timestamps(int).key_by(lambda n: n)
    with pytest.raises(sage.GraphError, match="pattern needs a Pattern"):
        keyed.pattern("a then b")  # type: ignore[arg-type]
    with pytest.raises(sage.GraphError, match="every step is optional"):
        keyed.pattern(Pattern.begin("one").optional())
    with pytest.raises(sage.GraphError, match="nothing times out without within"):
        keyed.pattern(Pattern.begin("one")).timeout_output(UNFINISHED)  # type: ignore[arg-type]
