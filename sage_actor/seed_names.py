"""The import names of SAGE's documents, served by this library.

Importing this module makes ``from sage.core.api import LocalEnvironment`` and the like work where no package of that name
is installed. It appends one finder to the end of ``sys.meta_path``, so a really installed ``sage`` (or ``sage_flow``, ...)
wins as a whole: nothing is ever mixed into a package of somebody else. ``sage run`` imports it; elsewhere write
``import sage_actor.seed_names`` before the first such import.

The names are the very objects of `sage_actor`; they are looked up when first used. A name whose feature is not built yet
raises ImportError and says which row of docs/features.md it waits for. The names exist in the process that imported this
module, so functions that travel to workers should use names imported at the top of the script, not import inside.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Final

__all__ = ["COMING_LATER", "SEED_NAMES", "install", "uninstall"]

_FUNCTIONS = ("AggregateFunction", "BaseFunction", "FilterFunction", "FlatMapFunction", "FunctionContext", "MapFunction", "ProcessFunction")
_ENVIRONMENTS = ("HybridEnvironment", "LocalEnvironment", "RemoteEnvironment")

SEED_NAMES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "sage.core.api": {name: name for name in (*_ENVIRONMENTS, "DataStream")},
        "sage.core.api.env": {name: name for name in _ENVIRONMENTS},
        "sage.core.api.local_environment": {"LocalEnvironment": "LocalEnvironment"},
        "sage.core.api.remote_environment": {"RemoteEnvironment": "RemoteEnvironment"},
        "sage.core.api.datastream": {"DataStream": "DataStream", "DataStreamSink": "DataStreamSink", "KeyedStream": "KeyedStream"},
        "sage.core.api.function": {name: name for name in (*_FUNCTIONS, "SinkFunction")},
        "sage.lib.io": {"ConsoleSink": "ConsoleSink", "FileSink": "FileSink", "FileSource": "FileSource"},
        # The document uses FileDataSource without saying where it comes from.
        "sage_flow.environment": {"SageFlowEnvironment": "LocalEnvironment", "FileDataSource": "FileSource"},
        "sage.middleware.service": {},
        "sage.utils.profiler": {},
        "sage_flow.integration": {},
        "sage_flow.monitoring": {},
        "sage_flow.optimization": {name: name for name in ("LoadBalancer", "MemoryOptimizer", "ParallelismController")},
        "sage_libs.rag.retriever": {},
        "sage_memory.cache": {},
        "sage_utils.config_loader": {},
        "sage_vector.client": {},
    }
)
"""Module of the seeds -> its names -> ours in `sage_actor`. The packages above these modules exist too, empty."""

COMING_LATER: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "sage.lib.io": {"DatabaseSink": "S3-09", "KafkaSink": "S1-14", "KafkaSource": "S1-14"},
        "sage.middleware.service": {"ModelService": "S1-31", "VectorDBService": "S1-32"},
        "sage.utils.profiler": {"PipelineProfiler": "S1-30"},
        "sage_flow.environment": {"SageFlowIntegratedEnvironment": "S0-22"},
        "sage_flow.integration": {
            "SageFlowIntegratedEnvironment": "S0-22",
            "SageLibsIntegration": "S0-22",
            "SageMemoryIntegration": "S0-22",
            "SageMonitoringClient": "S0-25",
            "SageRuntimeIntegration": "S0-22",
            "SageVectorIntegration": "S0-22",
        },
        "sage_flow.monitoring": {"PerformanceProfiler": "S0-13"},
        "sage_flow.optimization": {"CacheManager": "S0-05"},
        "sage_libs.rag.retriever": {"BaseRetriever": "S0-26"},
        "sage_memory.cache": {"DistributedCache": "S0-24"},
        "sage_utils.config_loader": {"load_config": "S0-02"},
        "sage_vector.client": {"VectorDBClient": "S0-23"},
    }
)
"""Module of the seeds -> its names that nothing stands behind yet -> the row of docs/features.md they wait for."""

_PACKAGES = frozenset(module.rsplit(".", depth)[0] for module in SEED_NAMES for depth in range(1, module.count(".") + 1))


class _SeedModule(ModuleType):
    """One module of the seeds: its names are those of the table."""

    def __getattr__(self, name: str) -> object:
        table = SEED_NAMES.get(self.__name__, {})
        ours = table.get(name)
        if ours is not None:
            value: object = getattr(importlib.import_module("sage_actor"), ours)
            setattr(self, name, value)
            return value
        row = COMING_LATER.get(self.__name__, {}).get(name)
        if row is not None:
            raise ImportError(
                f"{self.__name__}.{name} is not part of this version of sage_actor: what it names comes later "
                f"(row {row} of docs/features.md)",
                name=self.__name__,
            )
        there = f"here are {', '.join(sorted(table))}" if table else "it has no names yet"
        raise AttributeError(f"module {self.__name__!r} of sage_actor.seed_names has no attribute {name!r}; {there}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SEED_NAMES.get(self.__name__, {})})


class _SeedNames(MetaPathFinder, Loader):
    """Finder and loader of the seeds' modules."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A module of the table, unless the package above it belongs to somebody else."""
        if fullname not in SEED_NAMES and fullname not in _PACKAGES:
            return None
        parent = fullname.rpartition(".")[0]
        if parent and not isinstance(sys.modules.get(parent), _SeedModule):
            return None
        return ModuleSpec(fullname, self, origin="sage_actor.seed_names", is_package=fullname in _PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module that knows its names by the table."""
        return _SeedModule(spec.name, f"Names of SAGE's documents, served by sage_actor: {spec.name}.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing runs; `import *` gives the names of the table."""
        module.__dict__["__all__"] = sorted(SEED_NAMES.get(module.__name__, {}))


_finder = _SeedNames()


def install() -> None:
    """Serve the seeds' names from now on. Importing this module has done it already; a second call changes nothing."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def uninstall() -> None:
    """Stop serving the seeds' names and forget the modules served so far; objects taken from them stay valid."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name, module in list(sys.modules.items()):
        if isinstance(module, _SeedModule):
            del sys.modules[name]


install()
