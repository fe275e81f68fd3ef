"""serve(stream=True): an answer in parts, each handed on as soon as it is there.

Several readers at once, each at its own pace; a reader that leaves ends its own request only; an error comes behind the
parts before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import sage_actor as sage

STORY = ["a", "stream", "is", "a", "list", "that", "has", "not", "ended", "yet"]
made: dict[str, int] = {}


async def tell(request: tuple[str, int]) -> AsyncIterator[str]:
    """Words one by one, as a language model would give them."""
    reader, length = request
    for word in STORY[:length]:
        await asyncio.sleep(0)  # a model would think here
        made[reader] = made.get(reader, 0) + 1
        yield word
    if length > len(STORY):
        raise ValueError(f"the story has only {len(STORY)} words")


async def main() -> None:
    async with sage.Environment("stories") as env:
        story = await env.from_requests().flat_map(tell, name="tell").map(str.upper).serve(stream=True)

        async def read(reader: str, length: int) -> list[str]:
            return [word async for word in story((reader, length))]

        first, second = await asyncio.gather(read("first", 3), read("second", len(STORY)))
        assert first == ["A", "STREAM", "IS"]
        assert second == [word.upper() for word in STORY]

        async for word in story(("leaves early", len(STORY))):
            assert word == "A"
            break

        parts: list[str] = []
        try:
            async for word in story(("greedy", 99)):
                parts.append(word)  # noqa: PERF401 - those before the error are kept
        except sage.OperatorError as error:
            assert error.operator == "tell"
            assert isinstance(error.__cause__, ValueError)
            print(f"after {len(parts)} parts: {error.message}")
        assert len(parts) == len(STORY)

        assert await read("last", 2) == ["A", "STREAM"]  # nobody was disturbed
        print("parts made per reader:", made)


asyncio.run(main())
