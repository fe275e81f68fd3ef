"""Vectorised steps: numpy arrays in, numpy arrays out, no Python call per record.

An array given to from_collection travels in slices; map_batch(vectorized=True) gets them as arrays, and what it answers
with stays an array until a step wants single records.
"""

from __future__ import annotations

import numpy as np

import sage_actor as sage

generator = np.random.default_rng(7)
measurements = generator.normal(loc=20.0, scale=4.0, size=(200_000, 3))  # rows: temperature of three sensors
sizes: list[int] = []


def score(rows: np.ndarray) -> np.ndarray:
    """How unusual each row is: the length of its distance from the mean, in standard deviations."""
    sizes.append(len(rows))
    return np.sqrt((((rows - 20.0) / 4.0) ** 2).sum(axis=1))


env = sage.LocalEnvironment("unusual measurements")
unusual = (
    env.from_collection(measurements)
    .map_batch(score, vectorized=True, max_batch=4096)
    .filter(lambda s: s > 4.5)  # single records from here on
    .map(float)
    .collect()
)
env.execute()

expected = score(measurements)
assert np.allclose(list(unusual), expected[expected > 4.5])
calls = sizes[:-1]
assert max(calls) <= 4096
assert sum(calls) == len(measurements)
print(f"{len(measurements):,} rows in {len(calls)} calls of up to {max(calls):,} rows; {len(unusual)} unusual")
