"""The same dataflow in this process and in worker processes: one word changes.

Functions and closures of this file travel to the workers; there is no `if __name__ == "__main__"`. The second run names the
worker processes and their shares.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import sage_actor as sage

LIMIT = 20_000


def is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def last_digits(backend: str) -> tuple[dict[int, int], Counter[int]]:
    """How many primes below LIMIT end in each digit, and how many numbers each process looked at."""
    env = sage.LocalEnvironment(f"primes on {backend}", backend=backend, parallelism=2)
    looked_at = env.from_collection(range(LIMIT)).rebalance().map(lambda n: (n, is_prime(n), os.getpid()), name="test")
    counts = looked_at.filter(lambda row: row[1]).key_by(lambda row: row[0] % 10).count(emit="final").collect()
    shares = looked_at.key_by(lambda row: row[2]).count(emit="final").collect()
    env.execute()
    return dict(counts), Counter(dict(shares))


for backend in ("local", "process"):
    begun = time.perf_counter()
    counts, shares = last_digits(backend)
    print(f"{backend:>8}: {sum(counts.values()):,} primes in {time.perf_counter() - begun:.2f} s, numbers per process {dict(shares)}")
    assert sum(counts.values()) == 2262
    assert set(counts) == {1, 2, 3, 5, 7, 9}
    assert sum(shares.values()) == LIMIT
    if backend == "local":
        assert set(shares) == {os.getpid()}
        expected = counts
    else:
        assert counts == expected
        assert len(shares) == 2
        assert os.getpid() not in shares
