"""What happens to a record whose function raises: fail, skip, retry, dead_letter. Nothing vanishes without a counter.

Input: a file of sensor readings as JSON lines, some damaged. Damaged lines go to a file of their own, with the reason;
readings of an unknown unit are left out and counted; a calibration that fails twice is tried again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import sage_actor as sage

LINES = [
    '{"sensor": "a", "value": 20.5, "unit": "C"}',
    '{"sensor": "b", "value": 70.7, "unit": "F"}',
    '{"sensor": "c", "value": oops',
    '{"sensor": "d", "value": 300.0, "unit": "K"}',
    '{"sensor": "e", "value": 3, "unit": "parsec"}',
    "",
]
TO_CELSIUS = {"C": lambda v: v, "F": lambda v: (v - 32) * 5 / 9, "K": lambda v: v - 273.15}
attempts: list[str] = []


def celsius(reading: dict) -> tuple[str, float]:
    return reading["sensor"], TO_CELSIUS[reading["unit"]](reading["value"])


def calibrate(reading: tuple[str, float]) -> tuple[str, float]:
    attempts.append(reading[0])
    if len(attempts) <= 2:
        raise ConnectionError("the calibration service is not up yet")
    return reading[0], round(reading[1] + 0.1, 2)


with tempfile.TemporaryDirectory() as folder:
    source, bad = Path(folder, "readings.jsonl"), Path(folder, "bad.jsonl")
    source.write_text("\n".join(LINES) + "\n")

    env = sage.LocalEnvironment("readings")
    parsed = env.from_source(sage.FileSource, path=source).map(json.loads, name="parse", on_error="dead_letter")
    parsed.dead_letters().map(lambda d: {"line": d.value, "operator": d.operator, "why": str(d.error)}, name="describe").sink(
        sage.FileSink, path=bad, format="jsonl"
    )
    good = parsed.map(celsius, on_error="skip").map(calibrate, on_error=sage.Retry(attempts=4, delay="1ms", max_delay="4ms")).collect()
    job = env.execute()

    assert list(good) == [("a", 20.6), ("b", 21.6), ("d", 26.95)]
    letters = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [(letter["line"], letter["operator"]) for letter in letters] == [(LINES[2], "parse"), (LINES[5], "parse")]
    metrics = job.metrics()
    assert (metrics["dead_letters"], metrics["skipped"], metrics["retried"]) == (2, 1, 2)

    # Without a policy the first such record ends the job, and the error says where.
    strict = sage.LocalEnvironment("strict")
    strict.from_source(sage.FileSource, path=source).map(json.loads, name="parse").collect()
    try:
        strict.execute()
    except sage.OperatorError as error:
        assert (error.operator, error.position) == ("parse", 2)
        assert isinstance(error.__cause__, json.JSONDecodeError)
        print(f"without a policy: {error}")
    else:
        raise AssertionError("a damaged line must end the job")

print(f"good: {list(good)}; set aside: {[letter['why'] for letter in letters]}")
