"""A crawler: a pool of workers that pull their work, back-off for pages that are busy, one actor that knows what was seen.

python examples/crawler.py

A web site of 120 pages runs in this program, on a real port. Some pages answer 503 at first, one always does, one is broken.
The frontier decides what is fetched and when it is tried again; the fetchers pull addresses one at a time, so a slow page holds up
one of them and no address waits behind it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter

import httpx
import uvicorn
from fastapi import FastAPI, Response

import sage_actor as sage

PAGES = 120
ALWAYS_BUSY, BROKEN = 77, 33
LINKS = {page: sorted({page // 2, 2 * page + 1, 2 * page + 2, (page * 7) % PAGES} - {page}) for page in range(PAGES)}
BUSY_AT_FIRST = {page: random.Random(page).choice((0, 0, 0, 1, 2)) for page in range(PAGES)}

site = FastAPI()
visits: Counter[int] = Counter()


@site.get("/{page}")
async def show(page: int) -> Response:
    visits[page] += 1
    if page == BROKEN:
        return Response("<p>no links, no end", 500)
    if page == ALWAYS_BUSY or visits[page] <= BUSY_AT_FIRST[page]:
        return Response("busy", 503)
    return Response("".join(f'<a href="/{link}">{link}</a>' for link in LINKS[page] if link < PAGES))


class Busy(Exception):
    """The server asks to come back later."""


class Broken(Exception):
    """The page cannot be had."""


class Fetcher(sage.Actor):
    """Fetches pages, one at a time; its client lives as long as it does."""

    expected_errors = (Busy, Broken)

    def __init__(self, base: str) -> None:
        self.base = base

    async def on_start(self) -> None:
        self.client = httpx.AsyncClient(base_url=self.base, timeout=5)

    async def on_stop(self) -> None:
        await self.client.aclose()

    async def on_restart(self, error: BaseException) -> None:
        await self.client.aclose()

    async def fetch(self, page: int) -> list[int]:
        answer = await self.client.get(f"/{page}")
        if answer.status_code == 503:
            raise Busy(page)
        if answer.status_code != 200:
            raise Broken(f"page {page}: status {answer.status_code}")
        return [int(link) for link in re.findall(r'href="/(\d+)"', answer.text)]


class Frontier(sage.Actor):
    """What has been seen, what is under way, and when a busy page is tried again."""

    def __init__(self, fetchers: sage.WorkPullingPool[Fetcher], attempts: int = 5) -> None:
        self.fetchers = fetchers
        self.backoff = sage.ExponentialDelay(attempts=attempts, delay=0.01, max_delay=0.2)
        self.seen: set[int] = set()
        self.tries: Counter[int] = Counter()
        self.links: dict[int, list[int]] = {}
        self.given_up: dict[int, str] = {}
        self.finished = asyncio.Event()

    def add(self, page: int) -> None:
        if page not in self.seen:
            self.seen.add(page)
            self.ref.tell_nowait(Frontier.visit, page)

    async def visit(self, page: int) -> None:
        """One of up to 64 at a time; the pool's mailbox is bounded, and so is this actor's."""
        try:
            self.links[page] = await self.fetchers.ask(Fetcher.fetch, page, timeout=10)
        except Busy:
            self.tries[page] += 1
            failures = [0.0] * self.tries[page]
            delay = self.backoff.next_delay(failures, 0.0, random.Random(page))
            if delay is not None:
                self.context.timers.once(f"page {page}", delay, Frontier.visit, page)
                return
            self.given_up[page] = f"busy after {self.tries[page]} tries"
        except (Broken, sage.ActorError) as error:
            self.given_up[page] = str(error)
        else:
            for link in self.links[page]:
                self.add(link)
        if len(self.links) + len(self.given_up) == len(self.seen):
            self.finished.set()

    async def report(self) -> tuple[dict[int, list[int]], dict[int, str]]:
        """Answers when nothing is left to fetch; it takes one of the 64 places meanwhile."""
        await self.finished.wait()
        return self.links, self.given_up


async def crawl(base: str) -> None:
    async with sage.ActorSystem("crawler") as system:
        fetchers = await sage.spawn_work_pulling_pool(system, Fetcher, base, size=6, name="fetchers")
        frontier = await system.spawn(Frontier, fetchers, name="frontier", concurrency=64)
        await frontier.tell(Frontier.add, 0)
        links, given_up = await frontier.ask(Frontier.report, timeout=60)
        pulled = fetchers.statistics()
    reachable, pending = {0}, [0]
    while pending:
        page = pending.pop()
        for link in [] if page in (ALWAYS_BUSY, BROKEN) else LINKS[page]:
            if link < PAGES and link not in reachable:
                reachable.add(link)
                pending.append(link)
    assert set(links) | set(given_up) == reachable
    assert set(given_up) == {ALWAYS_BUSY, BROKEN}
    assert given_up[ALWAYS_BUSY] == "busy after 6 tries"
    assert visits[BROKEN] == 1, "a broken page is not tried again"
    assert all(visits[page] == BUSY_AT_FIRST[page] + 1 for page in links), "each page once, and once more for each time it was busy"
    print(f"{len(links)} pages with {sum(map(len, links.values()))} links in {sum(visits.values())} requests; given up: {given_up}")
    print("requests by worker:", [worker.handled for worker in pulled.workers])


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(site, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the site did not start"
        await asyncio.sleep(0.01)
    try:
        await crawl(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
