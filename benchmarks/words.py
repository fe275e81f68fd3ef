"""The input of the word counts: lines of ten words drawn by Zipf's law, the same for everybody."""

from __future__ import annotations

__all__ = ["DISTINCT", "lines_of_words"]

DISTINCT = 50_000


def lines_of_words(words: int, *, seed: int = 7) -> list[str]:
    """`words` words in lines of ten; each of the 50,000 appears, the one of rank r in proportion to 1/r."""
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, DISTINCT + 1)
    drawn = rng.choice(DISTINCT, size=words - DISTINCT, p=weights / weights.sum())
    ranks = np.concatenate((drawn, np.arange(DISTINCT)))
    rng.shuffle(ranks)
    vocabulary = [f"word{rank:x}" for rank in range(DISTINCT)]
    chosen = [vocabulary[rank] for rank in ranks.tolist()]
    return [" ".join(chosen[i : i + 10]) for i in range(0, len(chosen), 10)]
