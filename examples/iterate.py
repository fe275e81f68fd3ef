"""iterate(): a step applied again and again to each record until a condition holds.

First with one record per round (Newton's method), then with a generator as step, which may give several records: a walk
through the folders of a Python package.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import sage_actor as sage


def newton(state: tuple[float, float]) -> tuple[float, float]:
    """One round of Newton's method for the square root: (number, guess) -> (number, better guess)."""
    number, guess = state
    return number, (guess + number / guess) / 2


env = sage.LocalEnvironment("square roots")
roots = (
    env.from_collection([2.0, 81.0, 1e6])
    .map(lambda number: (number, number))
    .iterate(newton, until=lambda state: abs(state[1] ** 2 - state[0]) < 1e-9 * state[0], max_rounds=50)
    .map(lambda state: state[1])
    .collect()
)
env.execute()
assert all(math.isclose(root, math.sqrt(number)) for root, number in zip(roots, [2.0, 81.0, 1e6], strict=True))
print("square roots:", [round(root, 6) for root in roots])


def enter(folder: Path):
    """One round of the walk: what is inside of a folder."""
    yield from (entry for entry in sorted(folder.iterdir()) if entry.name != "__pycache__")


package = Path(json.__file__).parent
env = sage.LocalEnvironment("walk")
sizes = (
    env.from_collection([package])
    .iterate(enter, until=Path.is_file, name="walk")
    .filter(lambda path: path.suffix == ".py")
    .map(lambda path: (path.name, path.stat().st_size))
    .collect()
)
env.execute()
assert dict(sizes) == {path.name: path.stat().st_size for path in package.rglob("*.py")}
print("package json:", dict(sizes))

# A record that never gets there is an error of that record, which names the operator and the bound.
env = sage.LocalEnvironment("endless")
env.from_collection([1]).iterate(lambda n: n + 1, until=lambda n: n < 0, max_rounds=100, name="count up").collect()
try:
    env.execute()
except sage.OperatorError as error:
    assert error.operator == "count up"
    assert "100" in str(error)
    print(f"bounded: {error}")
else:
    raise AssertionError("a loop without end must be stopped")
