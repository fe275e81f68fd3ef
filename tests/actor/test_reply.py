"""Reply as a future: awaited twice, gathered, waited for, shielded, cancelled; answers of every kind come back intact."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


class Echo(sage.Actor):
    """Answers what it is told to, at once, after a turn, when the gate opens, or never."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def plain(self, answer: Any) -> Any:
        return answer

    async def later(self, answer: Any) -> Any:
        await asyncio.sleep(0)
        return answer

    async def when_open(self, answer: Any) -> Any:
        await self.gate.wait()
        return answer

    def fail(self, error: BaseException) -> Any:
        raise error

    async def fail_later(self, error: BaseException) -> Any:
        await asyncio.sleep(0)
        raise error

    def open_gate(self) -> None:
        self.gate.set()


class Loud:
    """Compares unequal to everything, itself included, and is false."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        raise AssertionError("an answer is handed on, not looked at")


ANSWERS: list[Any] = [
    None, (), (1,), (1, 2), ("nested", (1, 2)), [], {}, 0, False, "", ValueError("an answer"), StopIteration(5), StopIteration((1, 2)),
    KeyboardInterrupt(), asyncio.CancelledError("an answer"), ValueError, StopIteration, Loud(), lambda: 1,
    NotImplemented,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_dangling_failures() -> None:
    gc.collect()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: re.sub(" at 0x[0-9a-f]+", "", repr(answer)))
@pytest.mark.parametrize("inline", [True, False])
def test_any_answer_comes_back_as_the_very_object(answer: Any, inline: bool) -> None:
    async def main() -> None:
        async with sage.ActorSystem(inline_asks=inline) as system:
            echo = await system.spawn(Echo)
            await turns(2)
            assert await echo.ask(Echo.plain, answer) is answer
            assert await echo.ask(Echo.later, answer) is answer
            reply = echo.ask(Echo.later, answer)
            await turns(4)
            assert reply.result() is answer
            assert reply.exception() is None
            assert await reply is answer
            assert await asyncio.gather(echo.ask(Echo.plain, answer), echo.ask(Echo.later, answer)) == [answer, answer] or isinstance(
                answer, Loud
            )

    asyncio.run(main())


@pytest.mark.asyncio
async def test_a_reply_as_the_answer_of_a_plain_method_is_awaited_and_of_an_async_one_is_the_answer() -> None:
    async with sage.ActorSystem() as system:
        first, second = await system.spawn(Echo), await system.spawn(Echo)
        inner = second.ask(Echo.later, 7)
        assert await first.ask(Echo.plain, inner) == 7
        answer = await first.ask(Echo.later, inner)
        assert answer is inner
        assert await inner == 7


async def await_twice(reply: sage.Reply[Any]) -> object:
    answers = await asyncio.gather(reply, return_exceptions=True)
    if reply.exception() is None:
        assert await reply is answers[0]
    else:
        with pytest.raises(sage.ActorFailed) as caught:
            await reply
        assert caught.value is answers[0]
    return await reply


async def await_in_two_tasks(reply: sage.Reply[Any]) -> object:
    async def read() -> object:
        return await reply

    tasks = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.wait(tasks)
    assert tasks[0].exception() is tasks[1].exception()
    assert tasks[0].result() is tasks[1].result()
    return tasks[0].result()


async def gather_it_twice(reply: sage.Reply[Any]) -> object:
    return (await asyncio.gather(reply, reply))[1]


async def wait_for_it(reply: sage.Reply[Any]) -> object:
    done, pending = await asyncio.wait([reply])
    assert done == {reply}
    assert not pending
    return reply.result()


async def ensure_it(reply: sage.Reply[Any]) -> object:
    assert asyncio.isfuture(reply)
    assert asyncio.ensure_future(reply) is reply
    assert asyncio.wrap_future(reply) is reply  # type: ignore[arg-type]
    return await reply


async def shield_it(reply: sage.Reply[Any]) -> object:
    return await asyncio.shield(reply)


async def as_completed(reply: sage.Reply[Any]) -> object:
    (first,) = asyncio.as_completed([reply])
    return await first


@LOOPS
@pytest.mark.parametrize(
    "wait",
    [await_twice, await_in_two_tasks, gather_it_twice, wait_for_it, ensure_it, shield_it, as_completed],
    ids=lambda way: way.__name__,
)
@pytest.mark.parametrize("fails", [False, True])
def test_ways_to_wait(
    factory: Callable[[], asyncio.AbstractEventLoop], wait: Callable[[sage.Reply[Any]], Awaitable[object]], fails: bool
) -> None:
    error = ValueError("on purpose")

    async def main() -> None:
        async with sage.ActorSystem(restart=sage.NoRestart()) as system:
            echo = await system.spawn(Echo)
            if not fails:
                assert await wait(echo.ask(Echo.later, 5)) == 5
                assert await wait(echo.ask(Echo.plain, 6)) == 6
                return
            with pytest.raises(sage.ActorFailed) as caught:
                await wait(echo.ask(Echo.fail_later, error))
            assert caught.value.__cause__ is error
            assert error.__traceback__ is not None
            assert "fail_later" in str(caught.value)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.rule("A41")
@LOOPS
@pytest.mark.parametrize("around", ["gather", "gather of one", "wait", "shield", "bare", "gather with exceptions returned"])
def test_a_cancelled_wait_ends_and_gives_up_what_it_should(factory: Callable[[], asyncio.AbstractEventLoop], around: str) -> None:
    async def main() -> None:
        async with sage.ActorSystem() as system:
            first, second = await system.spawn(Echo), await system.spawn(Echo)
            replies = [first.ask(Echo.when_open, 1), second.ask(Echo.when_open, 2)]
            waits: dict[str, Callable[[], Any]] = {
                "gather": lambda: asyncio.gather(*replies),
                "gather of one": lambda: asyncio.gather(replies[0]),
                "gather with exceptions returned": lambda: asyncio.gather(*replies, return_exceptions=True),
                "wait": lambda: asyncio.wait(replies),
                "shield": lambda: asyncio.shield(replies[0]),
                "bare": lambda: replies[0],
            }

            async def wait() -> None:
                await waits[around]()

            task = asyncio.create_task(wait())
            await turns(3)
            task.cancel("enough")
            await asyncio.wait([task])
            assert task.cancelled()
            kept = around in ("wait", "shield")
            assert [reply.cancelled() for reply in replies] == [not kept, not kept and "gather" in around and "one" not in around]
            for ref in (first, second):
                ref.cell.actor.gate.set()
            await system.wait_idle()
            if kept:
                assert await replies[0] == 1

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.asyncio
async def test_a_gather_with_one_cancelled_child_raises_and_returns_it() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        first, second = echo.ask(Echo.later, 1), echo.ask(Echo.later, 2)
        second.cancel("no more")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.gather(first, second)
        answers = await asyncio.gather(echo.ask(Echo.later, 3), second, return_exceptions=True)
        assert answers[0] == 3
        assert isinstance(answers[1], asyncio.CancelledError)


@pytest.mark.asyncio
async def test_a_timeout_scope_around_an_ask_gives_it_up_and_the_answer_goes_nowhere() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.when_open, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await reply
        assert reply.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await reply
        echo.cell.actor.gate.set()
        await system.wait_idle()
        assert reply.cancelled()
        assert await echo.ask(Echo.plain, 2) == 2


@pytest.mark.asyncio
async def test_a_task_group_and_create_task_want_coroutines_and_say_so() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.later, 1)
        with pytest.raises(TypeError, match="coroutine was expected"):
            asyncio.create_task(reply)  # type: ignore[arg-type]  # noqa: RUF006 - there is none
        async with asyncio.timeout(5):
            assert await reply == 1


@pytest.mark.asyncio
async def test_reading_before_it_is_done() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.later, 1)
        assert not reply.done()
        assert not reply.cancelled()
        assert "pending" in repr(reply)
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        with pytest.raises(asyncio.InvalidStateError):
            reply.exception()
        assert await reply == 1
        assert reply.done()
        assert "answered" in repr(reply)
        assert reply.cancel() is False
        assert reply.result() == 1
        assert reply.get_loop() is asyncio.get_running_loop()


@pytest.mark.asyncio
async def test_reading_a_cancelled_one_raises_its_message() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.later, 1)
        assert reply.cancel("told so") is True
        assert reply.cancel("again") is False
        for read in (reply.result, reply.exception):
            with pytest.raises(asyncio.CancelledError, match="told so"):
                read()
        with pytest.raises(asyncio.CancelledError, match="told so"):
            await reply
        await system.wait_idle()


@pytest.mark.asyncio
async def test_callbacks_come_once_each_on_a_later_turn_in_the_order_added_in_their_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[tuple[str, str]] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda reply: seen.append((name, variable.get()))

    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.later, 1)
        taken_back, further_back = note("taken back"), note("further back")
        reply.add_done_callback(taken_back)
        variable.set("second")
        reply.add_done_callback(note("second"))
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        reply.add_done_callback(note("given"), context=context)
        reply.add_done_callback(further_back)
        reply.add_done_callback(further_back)
        assert reply.remove_done_callback(taken_back) == 1
        assert reply.remove_done_callback(further_back) == 2
        assert reply.remove_done_callback(further_back) == 0
        variable.set("after")
        reply.add_done_callback(note("last"))
        while not reply.done():
            assert seen == []
            await asyncio.sleep(0)
        assert await reply == 1
        await turns(1)
        assert seen == [("second", "second"), ("given", "given"), ("last", "after")]
        reply.add_done_callback(note("late"))
        assert len(seen) == 3
        await turns(1)
        assert seen[3] == ("late", "after")


@pytest.mark.asyncio
async def test_an_error_stands_in_the_reply_until_it_is_read_and_hurts_nobody_who_does_not() -> None:
    async with sage.ActorSystem(restart=sage.FixedDelay(attempts=None, delay=0)) as system:
        echo = await system.spawn(Echo)
        echo.ask(Echo.fail, ValueError("nobody reads this"))
        reply = echo.ask(Echo.fail, ValueError("somebody does"))
        await system.wait_idle()
        gc.collect()
        error = reply.exception()
        assert isinstance(error, sage.ActorFailed)
        assert str(error.__cause__) == "somebody does"
        assert error.actor == echo.path


@pytest.mark.asyncio
async def test_settled_once_for_all() -> None:
    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        reply = echo.ask(Echo.later, "from the handler")
        reply.answer("from elsewhere")
        reply.answer("later still")
        reply.fail(ValueError("too late"))
        assert reply.cancel() is False
        assert await reply == "from elsewhere"
        await system.wait_idle()
        assert await reply == "from elsewhere"
        # Nobody waited any more when its turn came, so it was not handled.
        assert [letter.asked for letter in system.dead_letters] == [True]


@pytest.mark.asyncio
async def test_nothing_is_kept_alive_by_an_answered_reply_or_by_the_actor() -> None:
    class Answer:
        pass

    async with sage.ActorSystem() as system:
        echo = await system.spawn(Echo)
        for method in (Echo.plain, Echo.later):
            answer = Answer()
            kept = weakref.ref(answer)
            reply = echo.ask(method, answer)
            assert await reply is answer
            reply_kept = weakref.ref(reply)
            del answer, reply
            await turns(2)
            assert kept() is None
            assert reply_kept() is None


@pytest.mark.asyncio
async def test_a_reply_can_be_weakly_referenced_hashed_and_given_a_type_argument() -> None:
    async with sage.ActorSystem() as system:
        echo: ActorRef[Echo] = await system.spawn(Echo)
        reply = echo.ask(Echo.later, 1)
        assert {reply: 1}[reply] == 1
        assert weakref.ref(reply)() is reply
        assert sage.Reply[int] is not None
        assert await reply == 1
