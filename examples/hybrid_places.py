"""One dataflow, several places: reading in this process, computing in workers, each step where it belongs.

A place is a name for a backend: `local` is this process, `process` are children of it, `redis://host/0` and `ray` reach other
machines. The steps say the names; which machine stands behind one is a line of the configuration.
"""

from __future__ import annotations

import os
from collections import Counter

import sage_actor as sage

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"] * 200
HERE = os.getpid()


def letters(word: str) -> tuple[str, int, int]:
    """What a heavy step stands for: the word, its letters, and the process that counted them."""
    return word, len(set(word)), os.getpid()


env = sage.HybridEnvironment("hybrid", places={"edge": "local", "heavy": {"backend": "process", "workers": 2}})
cleaned = env.from_collection(WORDS).map(str.strip, name="clean").place("edge").rebalance()
measured = cleaned.map(letters, name="measure", parallelism=2, resources={"num_cpus": 0.5}).place("heavy")
totals = measured.key_by(lambda row: row[0]).sum(lambda row: row[1], emit="final", name="totals").place("edge").collect()
workers = measured.map(lambda row: row[2], name="who", parallelism=1).collect()

print(env.explain())
env.execute()

shares = Counter(workers)
print(f"letters by word: {dict(totals)}")
print(f"words per process: {dict(shares)}; this process is {HERE}")
assert dict(totals) == {word: number * len(set(word)) for word, number in Counter(WORDS).items()}
assert len(shares) == 2
assert HERE not in shares
assert sum(shares.values()) == len(WORDS)
