"""Actors in worker processes: refs that travel, a registry that spans them, and a worker that is killed.

A desk in this process hands texts to counters on two workers, which it knows from the registry alone. One worker is killed in the
middle; the desk is told which counter is lost, gives its unanswered texts to the others, and every word is counted once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import sage_actor as sage

COUNTERS = sage.ServiceKey["WordCounter"]("word counters")
TEXTS = [f"the cat {n % 7} sat on the mat {n % 3}" for n in range(300)]


class WordCounter(sage.Actor):
    """Counts the words of texts, and says when it has had some."""

    def __init__(self) -> None:
        self.texts = 0
        self.some = asyncio.Event()

    async def on_start(self) -> None:
        self.context.system.registry.register(COUNTERS, self.context.ref)

    async def count(self, text: str) -> tuple[int, Counter[str]]:
        await asyncio.sleep(0.001)
        self.texts += 1
        if self.texts == 20:
            self.some.set()
        return os.getpid(), Counter(text.split())

    async def busy(self) -> None:
        await self.some.wait()


class Desk(sage.Actor):
    """Deals texts out, and deals them anew when a counter is lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def watch(self, counter: sage.ActorRef[WordCounter]) -> None:
        self.context.watch(counter)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        self.lost.append(f"{ended.ref.name}: {type(ended.reason).__name__}")

    async def count_all(self, texts: list[str]) -> tuple[Counter[str], Counter[int]]:
        words, shares = Counter[str](), Counter[int]()
        while texts:
            counters = self.context.system.registry.find(COUNTERS)
            asked = [counters[n % len(counters)].ask(WordCounter.count, text) for n, text in enumerate(texts)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for answer in answers:
                if not isinstance(answer, BaseException):
                    shares[answer[0]] += 1
                    words.update(answer[1])
                elif not isinstance(answer, sage.ActorStopped):
                    raise answer
            texts = [text for text, answer in zip(texts, answers, strict=True) if isinstance(answer, BaseException)]
        return words, shares

    def what_was_lost(self) -> list[str]:
        return self.lost


async def main() -> None:
    async with sage.ActorSystem("library", backend="process", workers=2) as system:
        desk = await system.spawn(Desk, concurrency=2)
        for number in range(2):
            await desk.ask(Desk.watch, await system.spawn(WordCounter, worker=number, concurrency=2))
        async for counters in system.registry.subscribe(COUNTERS):
            if len(counters) == 2:
                break

        counting = desk.ask(Desk.count_all, TEXTS)
        await counters[1].ask(WordCounter.busy)
        os.kill(system.workers[1].pid, signal.SIGKILL)
        words, shares = await counting

        assert words == Counter(" ".join(TEXTS).split())
        assert sum(shares.values()) == len(TEXTS)
        assert shares[system.workers[1].pid] > 0
        assert system.workers[1].alive is False
        assert await desk.ask(Desk.what_was_lost) == [f"{counters[1].name}: ActorLost"]
        for worker in system.workers:
            print(
                f"worker {worker.number} (process {worker.pid}): {shares[worker.pid]} texts{'' if worker.alive else ', then it was killed'}"
            )
        print(f"{sum(words.values())} words counted, each once; {words.most_common(1)[0][0]!r} most often")


asyncio.run(main())
