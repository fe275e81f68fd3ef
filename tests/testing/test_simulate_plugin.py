"""The mark `simulate`, in test sessions of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

RACE = """
    import asyncio

    import pytest

    @pytest.mark.simulate(seeds=200)
    async def test_race():
        total = 0

        async def add(delay):
            nonlocal total
            for _ in range(delay):
                await asyncio.sleep(0)
            before = total
            await asyncio.sleep(0)
            total = before + 1

        await asyncio.gather(add(0), add(3))
        assert total == 2
"""


def run(pytester: pytest.Pytester, program: str, *options: str) -> pytest.RunResult:
    """A session with the plugin, strict marks, and pytest-asyncio in strict mode beside it."""
    pytester.makepyfile(program)
    settings = ("-p", "sage_actor.testing.pytest_plugin", "--strict-markers", "-o", "asyncio_mode=strict", "-W", "error")
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")
    return pytester.runpytest_inprocess(*settings, *scope, *options)


def test_a_failing_seed_is_named_and_can_be_run_alone(pytester: pytest.Pytester) -> None:
    result = run(pytester, RACE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "*Captured simulation call*", "seed * failed*--simulate-seed=*"])
    told = next(line for line in result.outlines if "--simulate-seed=" in line)
    seed = told.rpartition("=")[2]
    run(pytester, RACE, f"--simulate-seed={seed}").assert_outcomes(failed=1)
    run(pytester, RACE, "--simulate-seed=0").assert_outcomes(passed=1)


def test_the_number_of_seeds_can_be_chosen_for_all(pytester: pytest.Pytester) -> None:
    run(pytester, RACE, "--simulate-seeds=1").assert_outcomes(passed=1)


COUNTING = """
    import asyncio
    import os

    import pytest

    runs = []

    @pytest.mark.simulate({arguments})
    async def test_counting(chosen):
        await asyncio.sleep(3600)
        runs.append(chosen)

    @pytest.fixture
    def chosen():
        return "value"

    def test_count():
        assert runs == ["value"] * {expected}
"""


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ("seeds=7, twice=3", (), 10),
        ("seeds=2", (), 4),
        ("", (), 105),
        ("seeds=7, twice=0", ("--simulate-seeds=4",), 4),
        ("seeds=7, twice=3", ("--simulate-seed=1",), 1),
    ],
)
def test_every_seed_runs_once_and_the_first_ones_twice(
    pytester: pytest.Pytester, arguments: str, options: tuple[str, ...], expected: int
) -> None:
    run(pytester, COUNTING.format(arguments=arguments, expected=expected), *options).assert_outcomes(passed=2)


def test_a_program_that_does_not_follow_from_its_seed_is_told(pytester: pytest.Pytester) -> None:
    program = """
        import asyncio
        import itertools

        import pytest

        kept_between_runs = itertools.count()

        @pytest.mark.simulate(seeds=3)
        async def test_leaking():
            for _ in range(next(kept_between_runs)):
                await asyncio.sleep(0)
    """
    result = run(pytester, program)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*SimulationDiverged: seed 0: two runs of it differ*"])


def test_other_tests_and_marks_are_left_alone(pytester: pytest.Pytester) -> None:
    program = """
        import asyncio

        import pytest

        def test_plain():
            pass

        @pytest.mark.asyncio
        async def test_of_asyncio():
            await asyncio.sleep(0)

        class TestGrouped:
            @pytest.mark.parametrize("number", [1, 2])
            @pytest.mark.simulate(seeds=3)
            async def test_method(self, number, tmp_path):
                assert tmp_path.exists() and number

        @pytest.mark.simulate(seeds=3)
        async def test_skipping():
            pytest.skip("not today")

        @pytest.mark.simulate(seeds=3, max_steps=5, leftovers="cancel", busy=0.1)
        async def test_arguments():
            asyncio.ensure_future(asyncio.Event().wait())
    """
    run(pytester, program).assert_outcomes(passed=5, skipped=1)


@pytest.mark.parametrize(
    ("mark", "function", "told"),
    [
        ("simulate(200)", "async def", "the mark is written simulate(seeds=200)"),
        ("simulate(seed=3)", "async def", "the mark is written simulate(seeds=200)"),
        ("simulate(seeds=0)", "async def", "would run nothing"),
        ("simulate(seeds=3)", "def", "only an `async def` can be simulated"),
        ("asyncio\n@pytest.mark.simulate(seeds=3)", "async def", "take off the mark `asyncio`"),
    ],
)
def test_a_wrong_mark_is_refused_with_a_word(pytester: pytest.Pytester, mark: str, function: str, told: str) -> None:
    result = run(pytester, f"import pytest\n\n@pytest.mark.{mark}\n{function} test_wrong():\n    pass\n")
    result.assert_outcomes(failed=1)
    assert any(told in line for line in result.outlines)


@pytest.mark.parametrize("option", ["--simulate-seeds=0", "--simulate-seed=-1"])
def test_seeds_that_cannot_be_are_refused(pytester: pytest.Pytester, option: str) -> None:
    result = run(pytester, "def test_nothing(): pass", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
