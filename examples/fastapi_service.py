"""A dataflow inside a web service: every request gets exactly its own answer, concurrent requests share batches.

python examples/fastapi_service.py            asks itself 200 questions at once and checks the answers
uvicorn examples.fastapi_service:app          serves: curl 'http://127.0.0.1:8000/answer?q=how+do+I+pay'

The service finds the entry of a small FAQ that is nearest to a question. Questions become vectors one by one; they are
compared with all entries by one matrix product per batch.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
from fastapi import FastAPI, HTTPException

import sage_actor as sage

FAQ = {
    "How can I pay, and do you take credit cards?": "Card, invoice or bank transfer.",
    "How long does delivery of an order take?": "Two to four working days.",
    "Can I return an article, and who pays for sending it back?": "Within 30 days, free of charge.",
    "How do I change my password or my mail address?": "In your account, under Settings.",
    "Where is my order now? Can I track the parcel?": "The link is in the mail that we sent you.",
}
DIMENSIONS = 512
batch_sizes: list[int] = []


def embed(text: str) -> np.ndarray:
    """A unit vector of hashed words and word pieces."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        raise ValueError("the question contains no words")
    vector = np.zeros(DIMENSIONS)
    for word in words:
        for piece in {word, *(word[i : i + 4] for i in range(len(word) - 3))}:
            vector[zlib.crc32(piece.encode()) % DIMENSIONS] += 1
    return vector / np.linalg.norm(vector)


QUESTIONS = list(FAQ)
MATRIX = np.stack([embed(question) for question in QUESTIONS])


def nearest(vectors: list[np.ndarray]) -> list[str]:
    """The nearest FAQ entry for each question of a batch."""
    batch_sizes.append(len(vectors))
    return [QUESTIONS[i] for i in (np.stack(vectors) @ MATRIX.T).argmax(axis=1)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with sage.Environment("faq") as env:
        app.state.find = await env.from_requests(capacity=1000).map(embed).map_batch(nearest, max_batch=64).serve()
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/answer")
async def answer(q: str) -> dict[str, str]:
    try:
        question = await app.state.find(q, timeout=2)
    except sage.OperatorError as error:
        raise HTTPException(422, str(error.__cause__)) from error
    return {"question": question, "answer": FAQ[question]}


async def self_test() -> None:
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        asked = ["pay by credit card", "how long until delivery", "return an article", "change password", "track my parcel"] * 40
        answers = await asyncio.gather(*(client.get("/answer", params={"q": q}) for q in asked))
        assert [a.json()["question"] for a in answers] == QUESTIONS * 40
        bad = await client.get("/answer", params={"q": "???"})
        assert (bad.status_code, bad.json()["detail"]) == (422, "the question contains no words")
        assert (await client.get("/answer", params={"q": "invoice or card?"})).status_code == 200  # the flow goes on
    assert sum(batch_sizes) == 201
    assert max(batch_sizes) > 1
    print(f"{len(answers)} questions answered in {len(batch_sizes)} batches of up to {max(batch_sizes)}; one refused with 422")


if __name__ == "__main__":
    asyncio.run(self_test())
