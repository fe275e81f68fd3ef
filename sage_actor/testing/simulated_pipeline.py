"""A dataflow of a person's own under simulated faults: its results must be those of an undisturbed run."""

from __future__ import annotations

import importlib.util
import inspect
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, cast

import sage_actor as sage
from sage_actor.testing.simulated_faults import FaultRates, PlannedFault
from sage_actor.testing.simulated_findings import Finding, examine, shortened
from sage_actor.testing.simulated_lives import Life
from sage_actor.testing.simulated_run import SimulatedReport, Tally, run_course
from sage_actor.testing.simulated_site import Site
from sage_actor.testing.simulated_store import STORE, SimulatedStore

__all__ = ["Finding", "PipelineResults", "SimulatedPipeline", "SimulatedReport", "Tally"]

_LADDERS: Final = ((1,), (2,), (2, 3, 1), (1, 2, 4))
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class PipelineResults:
    """What a dataflow has come to.

    Attributes:
        collected: the records of what ``pipeline`` returned: of one ``collect()`` under "collected", of a mapping under its names.
        tables: the visible records of each table that a `StoreSink` writes, in the order of the commits.
    """

    collected: dict[str, list[Any]] = field(default_factory=lambda: dict[str, list[Any]]())
    tables: dict[str, list[Any]] = field(default_factory=lambda: dict[str, list[Any]]())

    def differences(self, expected: PipelineResults) -> list[str]:
        """What is lost, duplicated or wrong, in words; order does not count."""
        found: list[str] = []
        for kind, own, right in (("collected", self.collected, expected.collected), ("table", self.tables, expected.tables)):
            for name in sorted(own.keys() | right.keys()):
                found += _differences(f"{kind} {name!r}", own.get(name, ()), right.get(name, ()))
        return found


class SimulatedPipeline:
    """A dataflow that is described by a function, to be run under the faults of many seeds.

    Args:
        describe: called with an environment, in each life of the job; describes the dataflow and does not start it. May be a
            coroutine function. Returns nothing, what ``collect()`` returned, or a mapping from names to such.
        check: called with the `PipelineResults` of each seed; raises if they are not right. They are compared with those of an
            undisturbed run in any case.
        rates: what goes wrong, at most; failures of functions are for those who plan them (`Site.occurs`).
    """

    def __init__(
        self,
        describe: Callable[[sage.Environment], object],
        check: Callable[[PipelineResults], object] | None = None,
        rates: FaultRates | None = None,
    ) -> None:
        self.describe = describe
        self.check = check
        self.rates = FaultRates(functions=0) if rates is None else rates
        self._expected: PipelineResults | None = None

    @classmethod
    def from_file(cls, path: str) -> SimulatedPipeline:
        """Take the functions ``pipeline`` and, if there is one, ``check`` from a script; it is not run as ``__main__``.

        Raises:
            OSError: it cannot be read.
            AttributeError: it has no function ``pipeline``.
        """
        module = _load(path)
        describe: object = getattr(module, "pipeline", None)
        if not callable(describe):
            raise AttributeError(f"{path}: has no function pipeline(env) that describes a dataflow")
        return cls(describe, getattr(module, "check", None))

    @property
    def expected(self) -> PipelineResults:
        """The results of an undisturbed run, which is made when they are first asked for."""
        if self._expected is None:
            course = _Course(self, 0, None)
            run_course(0, (), course)
            self._expected = course.results
        return self._expected

    def run(self, seed: int, faults: Sequence[PlannedFault]) -> SimulatedReport:
        """Run one seed under these faults.

        Raises:
            AssertionError: the results are not right.
            SageError: the job failed.
        """
        return run_course(seed, faults, _Course(self, seed, self.expected), slow_sources=True)

    def examine(self, seed: int) -> SimulatedReport | Finding:
        """Run one seed under the faults that follow from it; what is wrong comes back."""
        return examine(seed, self.rates, self.run)

    def shortened(self, finding: Finding) -> Finding:
        """With as few faults as it still fails with."""
        return shortened(finding, self.run)


class _Course:
    """One seed of a pipeline; the undisturbed run, if nothing is expected yet."""

    def __init__(self, pipeline: SimulatedPipeline, seed: int, expected: PipelineResults | None) -> None:
        chance = random.Random(f"pipeline {seed}")
        self.pipeline = pipeline
        self.seed = seed
        self.expected = expected
        self.results = PipelineResults()
        self.store = SimulatedStore(random.Random(f"store {seed}"))
        backend, ladder = chance.choice(("local", "simulated")), chance.choice(_LADDERS)
        self.lives: Sequence[Life] = [Life("local", 1)] if expected is None else [Life(backend, tasks) for tasks in ladder]
        self.busy: float = chance.choice((0.0, 1e-4))
        self.settings = {
            "checkpoint.dir": "checkpoints",
            "checkpoint.interval": chance.choice((0.1, 0.3)),
            "checkpoint.timeout": 5.0,
            "checkpoint.tolerated": 3,
            "checkpoint.retained": chance.choice((1, 3)),
            "restart.strategy": "fixed-delay",
            "restart.attempts": 0,
            "restart.delay": 0.1,
            "max_parallelism": 32,
            "buffer.records": chance.choice((1, 2, 16, 4096)),
            "batch.records": chance.choice((1, 3, 64, 4096)),
        }

    def begin(self, site: Site) -> None:
        STORE.set(self.store)

    async def run(self, life: Life) -> None:
        async with sage.Environment(
            "simulated", backend=life.backend, parallelism=life.parallelism, resume=True, config=self.settings
        ) as env:
            described = self.pipeline.describe(env)
            if inspect.isawaitable(described):
                described = await described
            await env.execute()
        self.results.collected.update({name: list(records) for name, records in _collected(described).items()})

    def finish(self) -> None:
        self.results.tables.update(self.store.tables)
        problems = list(self.store.violations)
        if self.expected is not None:
            problems += self.results.differences(self.expected)
        assert not problems, "; ".join(problems)
        if self.pipeline.check is not None:
            self.pipeline.check(self.results)


def _collected(described: object) -> Mapping[str, Iterable[Any]]:
    if isinstance(described, Mapping):
        return cast("Mapping[str, Iterable[Any]]", described)
    if isinstance(described, Sequence):
        return {"collected": cast("Sequence[Any]", described)}
    return {}


def _differences(where: str, own: Iterable[Any], right: Iterable[Any]) -> list[str]:
    got, wanted = _counted(own), _counted(right)
    lost, more = wanted - got, got - wanted
    words = {
        "lost": list(lost),
        "duplicated": [record for record in more if record in wanted],
        "not in an undisturbed run": [record for record in more if record not in wanted],
    }
    return [f"{where}: {len(records)} {word}, such as {records[:_SHOWN]}" for word, records in words.items() if records]


def _counted(records: Iterable[Any]) -> Counter[Any]:
    rows = list(records)
    try:
        return Counter(rows)
    except TypeError:  # something in them cannot be hashed
        return Counter(map(repr, rows))


def _load(path: str) -> ModuleType:
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # its functions and classes travel by that name
    spec.loader.exec_module(module)
    return module
