"""The shape of the code, read from the code itself: layers, sizes, exports, docstrings, lazy imports, forbidden things.

The layers are those that docs/architecture.md draws; there is no second list of them here.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOFT_LIMIT, HARD_LIMIT = 500, 800

# Product files between the two limits, each with its reason.
LONG_FILES = {
    "sage_actor/_core/batch_queue.pyx": "the mailbox and the gate share C-level innards; across two extensions each call would cost more",
    "sage_actor/_core/actor_cell.pyx": "one loop: its parts call each other per message, which across two extensions would cost more",
    "sage_actor/_core/window.pyx": "one table: keys, slots, running values and what has changed move together per record",
    "sage_actor/errors.py": "one error tree, in one file",
    "sage_actor/__init__.py": "every public name three times: for type checkers, for loading when first used, for `import *`",
    "sage_actor/_core/lru_cache.pyx": "one data structure: index, ring, expiry and single flight move under one lock",
}

# What `import sage_actor` must not load.
HEAVY = ["numpy", "fastapi", "uvicorn", "typer", "rich", "prometheus_client", "structlog", "redis", "anyio", "httpx", "uvloop", "aiosqlite"]

# Where everything may be caught: there, code that is not ours runs, or nobody stands above who could be told.
BROAD_HANDLERS = {
    "sage_actor/actor/dead_letters.py": "subscribers",
    "sage_actor/actor/family.py": "the supervisor of actors: constructors and on_start",
    "sage_actor/actor/inspection.py": "__repr__ and __str__ of the program's own objects",
    "sage_actor/actor/inspector.py": "looking at the program's objects: whatever that raises is the answer",
    "sage_actor/actor/lifecycle.py": "the supervisor of actors: hooks",
    "sage_actor/actor/passivation.py": "the supervisor of actors: on_passivate, and what is made anew",
    "sage_actor/actor/restarting.py": "the supervisor of actors: constructors and hooks",
    "sage_actor/actor/portable.py": "user exception classes, rebuilt in another process",
    "sage_actor/actor/pool_worker.py": "user functions and user pickles",
    "sage_actor/actor/process_pool.py": "user classes, while they are pickled",
    "sage_actor/actor/threaded.py": "the end of a thread; whoever starts or closes the system is told",
    "sage_actor/actor/supervisor_scope.py": "the user's decide",
    "sage_actor/actor/system.py": "subscribers of the dead letters",
    "sage_actor/testing/simulation_loop.py": "the offloaded function is the user's; its caller gets the error",
    "sage_actor/state/pickling.py": "user classes, while they are pickled",
    "sage_actor/state/frozen_state.py": "user classes, while they are pickled",
    "sage_actor/jobs/asking.py": "__repr__ and __str__ of user values",
    "sage_actor/runtime/queries.py": "user aggregates, migrations and pickles; the asker is told",
    "sage_actor/testing/simulated_findings.py": "a run that fails in any way is a finding",
    "sage_actor/jobs/runner.py": "the supervisor's edge: whatever ends a job is its result",
    "sage_actor/jobs/script.py": "the supervisor's edge: whatever a script raises is its result",
    "sage_actor/parallel/thread_pool.py": "user functions; their callers are told",
    "sage_actor/remote/classes.py": "what user classes are made of, while it is rebuilt; whatever names one of them is refused",
    "sage_actor/remote/failures.py": "user exceptions, while they are taken apart, rebuilt or told in words",
    "sage_actor/remote/homes.py": "user classes, while they are rebuilt",
    "sage_actor/remote/node.py": "user classes and exceptions, while they are rebuilt; whoever asked is told",
    "sage_actor/remote/parts.py": "user generators; their readers are told",
    "sage_actor/remote/spawning.py": "user classes, their constructors and on_start; whoever spawns is told",
    "sage_actor/remote/wire.py": "user classes, while they are pickled",
    "sage_actor/remote/worker.py": "user modules and classes; the owner is told",
    "sage_actor/operators/async_stage.py": "user functions",
    "sage_actor/operators/keyed_call_stage.py": "user functions",
    "sage_actor/operators/pattern_stage.py": "user functions",
    "sage_actor/operators/window_stage.py": "user functions",
    "sage_actor/operators/batch_stage.py": "user functions",
    "sage_actor/runtime/coordinator.py": "the supervisor of the job: any failure becomes its status",
    "sage_actor/operators/fold_stage.py": "user functions",
    "sage_actor/runtime/io.py": "user iterables",
    "sage_actor/operators/iterate_stage.py": "user functions",
    "sage_actor/operators/stages.py": "user functions: close() and __repr__",
    "sage_actor/runtime/task.py": "user functions: close()",
    "sage_actor/runtime/worker.py": "user pickles",
    "backends/frame_reader.py": "the handler of the layer above",
    "backends/loopback.py": "the handler of the layer above",
    "backends/ray_actor.py": "whatever Ray raises once it was shut down; the owner is told",
    "backends/ray_connection.py": "whatever Ray raises in its thread is its caller's",
    "backends/ray_endpoint.py": "whatever Ray raises where its store is full or it was shut down; the endpoint fails with it",
    "backends/ray_link.py": "the handler of the layer above",
    "backends/ray_worker.py": "the entry is user code; the owner is told",
    "backends/socket_link.py": "the handler of the layer above",
    "backends/worker_main.py": "the end of a process: the owner is told",
}

FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?|stuff)(_|$)")
PACKAGES = ("sage_actor", "backends")


class Module(NamedTuple):
    """One source file of the product; `name` is the dotted name it imports as."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def place(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


def source_files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    """Files below some folders, without what is built and without following the link sage_actor/backends."""
    found: list[Path] = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            inside_link = parts[:2] == ("sage_actor", "backends") or "build" in parts or "__pycache__" in parts
            if path.suffix in suffixes and path.is_file() and not inside_link:
                found.append(path)
    return found


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the product, stubs of the compiled ones included."""
    found: list[Module] = []
    for path in source_files(*PACKAGES, suffixes=(".py", ".pyi")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[0] == "backends":
            parts.insert(0, "sage_actor")
        if parts[-1] == "__init__":
            parts.pop()
        found.append(Module(path, ".".join(parts), ast.parse(path.read_text(encoding="utf-8"), path.as_posix())))
    return tuple(found)


def module_parameters() -> list[object]:
    return [pytest.param(module, id=module.place) for module in modules()]


# -- layers -----------------------------------------------------------------------------------------------------------


def layers() -> dict[str, int]:
    """Layer name -> height, from the block under "## Layers" in docs/architecture.md; 0 is the bottom."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Layers", 1)[1].split("\n## ", 1)[0]
    rows = [re.split(r"\s{2,}", line.strip())[0] for line in section.splitlines() if line.startswith("    ") and line.strip()]
    names = [[name.strip() for name in row.split("|")] for row in rows]
    return {name: height for height, row in enumerate(reversed(names)) for name in row}


def layer_of(module: str) -> str:
    """The first part below sage_actor; "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(module: Module) -> Iterator[tuple[str, int]]:
    """Every name of sage_actor that a module imports, wherever and for whatever purpose, with its line."""
    known = {other.name for other in modules()}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.place}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in known else node.module or "", node.lineno)


# One import against the layers, each with its reason.
ALLOWED_IMPORTS = {
    ("sage_actor/cli/demo.py", "sage_actor.testing.redis_server"): "`make demo BACKEND=redis` starts a private server, as the tests do",
    ("sage_actor/cli/simulate.py", "sage_actor.testing.simulated_pipeline"): "the command is the simulation's front; imported when called",
}


def may_import(importer: str, target: str, height: dict[str, int]) -> str:
    """Why a layer may not import another; "" if it may."""
    if target in {importer, "errors"}:  # the error tree imports nothing and is everybody's
        return ""
    if target == "backends":
        return "backends are loaded by name (entry points), never imported"
    if target == "testing":
        return "product code never imports testing"
    if target == "":
        return "" if importer in {"cli", "testing"} else "the package's front imports the layers, not the other way round"
    if target not in height:
        return f"layer {target!r} is not drawn in docs/architecture.md"
    if importer == "backends":
        return "" if height[target] <= height["actor"] else "backends know `actor` and what lies below it"
    if importer == "testing":
        return "" if height[target] <= height["config"] else "testing stands above config"
    if height[target] < height[importer]:
        return ""
    return "imports go downwards only, and siblings do not import each other"


def test_imports_go_downwards() -> None:
    height = layers()
    assert {"cli", "server", "jobs", "config", "stream", "actor", "_core", "errors", "ports"} <= set(height)
    wrong: list[str] = []
    for module in modules():
        importer = layer_of(module.name)
        if importer in {"", "__main__", "seed_names"}:
            continue
        if importer not in height and importer not in {"backends", "testing"}:
            wrong.append(f"{module.place}: its layer {importer!r} is not drawn in docs/architecture.md")
            continue
        for target, line in imported(module):
            if target.split(".")[0] != "sage_actor" or (module.place, target) in ALLOWED_IMPORTS:
                continue
            if reason := may_import(importer, layer_of(target), height):
                wrong.append(f"{module.place}:{line}: {importer} imports {target}: {reason}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_front_and_the_seed_names_import_no_backend_and_no_testing() -> None:
    for module in modules():
        if layer_of(module.name) in {"", "__main__", "seed_names"}:
            for target, line in imported(module):
                assert layer_of(target) not in {"backends", "testing"}, f"{module.place}:{line} imports {target}"


@pytest.mark.parametrize(("library", "layer"), [("fastapi", "server"), ("uvicorn", "server"), ("starlette", "server"), ("typer", "cli")])
def test_a_library_is_known_to_one_layer(library: str, layer: str) -> None:
    users = {layer_of(m.name) for m in modules() for target, _ in imported(m) if target.split(".")[0] == library}
    assert users <= {layer}, f"{library} is imported in {sorted(users - {layer})}; only {layer} may know it"


@pytest.mark.parametrize("layer", ["_core", "actor"])
def test_the_lowest_layers_use_asyncio_alone(layer: str) -> None:
    users = [m.place for m in modules() for target, _ in imported(m) if layer_of(m.name) == layer and target.split(".")[0] == "anyio"]
    assert not users, f"anyio stands at the edges: {users}"


# -- sizes and places -------------------------------------------------------------------------------------------------


def test_file_lengths() -> None:
    folders = (*PACKAGES, "tests", "benchmarks", "examples")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in source_files(*folders, suffixes=(".py", ".pyi", ".pyx", ".pxd", ".js", ".css", ".html"))
    }
    allowed = {name: HARD_LIMIT if name in LONG_FILES or name.startswith("tests/") else SOFT_LIMIT for name in lengths}
    too_long = [f"{name}: {n} lines" for name, n in lengths.items() if n > allowed[name]]
    assert not too_long, "split them, one concept a file:\n" + "\n".join(too_long)
    assert set(LONG_FILES) <= set(lengths), f"gone, take off the list: {sorted(set(LONG_FILES) - set(lengths))}"


def test_two_folder_levels_and_every_package_has_an_init() -> None:
    for path in source_files(*PACKAGES, suffixes=(".py", ".pyi", ".pyx")):
        depth = len(path.relative_to(ROOT).parts)
        assert depth <= 3, f"{path.relative_to(ROOT)}: at most two folder levels"
        assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(ROOT)} has no __init__.py: the wheel would lack it"


def test_no_name_says_nothing() -> None:
    wrong = [m.place for m in modules() if any(FORBIDDEN_NAMES.search(part) for part in m.name.split(".")[1:])]
    classes = [
        f"{m.place}:{node.lineno} class {node.name}"
        for m in modules()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.ClassDef) and re.search(r"(Utils?|Helper|Manager)$", node.name)
    ]
    assert not wrong + classes, f"name them after what they are: {wrong + classes}"


def test_every_compiled_module_has_its_declarations_and_stub() -> None:
    for path in source_files("sage_actor", suffixes=(".pyx",)):
        for suffix in (".pxd", ".pyi"):
            assert path.with_suffix(suffix).exists(), f"{path.relative_to(ROOT)} has no {suffix}"


def test_the_link_for_type_checkers_is_there() -> None:
    link = ROOT / "sage_actor" / "backends"
    assert link.is_symlink(), "sage_actor/backends must be a link: ln -s ../backends sage_actor/backends"
    assert link.readlink() == Path("../backends")


# -- what importing costs ---------------------------------------------------------------------------------------------


def test_import_is_light() -> None:
    program = f"import sys, sage_actor; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]", f"`import sage_actor` loads {done.stdout.strip()}"


# -- exports and docstrings -------------------------------------------------------------------------------------------


def string_list(node: ast.expr | None) -> list[str]:
    return [e.value for e in getattr(node, "elts", []) if isinstance(e, ast.Constant) and isinstance(e.value, str)]


def declared_exports(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return string_list(node.value)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "__all__":
            return string_list(node.value)
    return None


def names_defined(module: Module) -> set[str]:
    """Names bound at the top level of a module, imports and conditional blocks included."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(module.tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            found.update(name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.If | ast.Try):
            pending += node.body + node.orelse + getattr(node, "finalbody", [])
    return found


@pytest.mark.parametrize("module", module_parameters())
def test_exports_exist(module: Module) -> None:
    exports = declared_exports(module)
    if exports is None:
        plain = module.path.suffix == ".pyi" or module.path.name in {"__init__.py", "__main__.py"}
        own = [getattr(node, "name", "_") for node in module.tree.body]
        assert plain or all(name.startswith("_") for name in own), f"{module.place} declares no __all__"
        return
    assert len(exports) == len(set(exports)), f"{module.place}: a name stands twice in __all__"
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in module.tree.body)
    missing = set(exports) - names_defined(module)
    assert lazy or not missing, f"{module.place}: __all__ names {sorted(missing)}, which it does not define"


def test_what_one_module_takes_from_another_is_exported_there() -> None:
    exports = {module.name: declared_exports(module) for module in modules()}
    wrong: list[str] = []
    for module in modules():
        for node in ast.walk(module.tree):
            listed = exports.get(node.module or "") if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.ImportFrom) and listed is not None:
                hidden = [a.name for a in node.names if a.name not in listed and f"{node.module}.{a.name}" not in exports]
                wrong += [f"{module.place}:{node.lineno} takes {name}, which {node.module} does not export" for name in hidden]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_name_of_the_front_resolves_and_is_listed() -> None:
    import sage_actor

    unresolved = [name for name in sage_actor.__all__ if not hasattr(sage_actor, name)]
    assert not unresolved, f"sage_actor.__all__ names {unresolved}, which do not resolve"
    assert set(sage_actor.__all__) <= set(dir(sage_actor)), "dir(sage_actor) must show the names that load lazily"


def bases_of(node: ast.ClassDef) -> set[str]:
    """Last part of the name of each base, subscripts taken off."""
    found: set[str] = set()
    for base in node.bases:
        bare = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(bare, ast.Name | ast.Attribute):
            found.add(bare.id if isinstance(bare, ast.Name) else bare.attr)
    return found


@functools.cache
def documented_methods() -> tuple[dict[str, set[str]], set[str], dict[str, set[str]]]:
    """Class -> its documented methods; documented methods of all protocols; class -> its bases."""
    by_class: dict[str, set[str]] = {}
    of_protocols: set[str] = set()
    bases: dict[str, set[str]] = {}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                methods = {m.name for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(m)}
                by_class.setdefault(node.name, set()).update(methods)
                bases.setdefault(node.name, set()).update(bases_of(node))
                if "Protocol" in bases[node.name]:
                    of_protocols |= methods
    return by_class, of_protocols, bases


def contract_stands_above(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class or a protocol documents this method: its contract need not be said twice.

    A base from a library counts as documented there.
    """
    by_class, of_protocols, bases = documented_methods()
    plain = {"Generic", "NamedTuple", "TypedDict", "Enum", "IntEnum", "StrEnum", "Exception", "object", "ABC", "Struct", "BaseModel"}
    pending, seen = [owner.name], set[str]()
    while pending:
        name = pending.pop()
        seen.add(name)
        if method in by_class.get(name, set()) or (name not in by_class and name not in plain):
            return True
        pending += bases.get(name, set()) - seen
    return method in of_protocols


def undocumented(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[str]:
    documented_here: set[str] = set()  # an overload's implementation, or a setter, shares one docstring
    waiting: dict[str, int] = {}
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node):
            documented_here.add(node.name)
        elif isinstance(node, ast.ClassDef) or owner is None or not contract_stands_above(owner, node.name):
            waiting.setdefault(node.name, node.lineno)
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, node)
    prefix = f"{owner.name}." if owner else ""
    yield from (f"{line}: {prefix}{name}" for name, line in waiting.items() if name not in documented_here)


@pytest.mark.parametrize("module", module_parameters())
def test_public_names_have_docstrings(module: Module) -> None:
    without = list(undocumented(module.tree.body))
    if module.path.name != "__main__.py" and not ast.get_docstring(module.tree):
        without.insert(0, "1: the module")
    assert not without, f"{module.place} has no docstring for\n  " + "\n  ".join(without)


# -- forbidden things -------------------------------------------------------------------------------------------------


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names of everything called or referred to as module.attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def test_only_cli_prints() -> None:
    wrong = [f"{m.place}:{line}" for m in modules() if layer_of(m.name) != "cli" for name, line in calls(m.tree) if name == "print"]
    assert not wrong, f"only cli prints; here use a structlog event, an error or a return value: {wrong}"


def test_only_config_reads_the_environment() -> None:
    names = {"os.environ", "os.getenv", "os.environb"}
    wrong = [
        f"{m.place}:{line}"
        for m in modules()
        if layer_of(m.name) not in {"config", "testing"}
        for name, line in calls(m.tree)
        if name in names
    ]
    assert not wrong, f"only sage_actor.config reads the environment: {wrong}"


def test_broad_handlers_stand_in_the_named_files_and_say_why() -> None:
    """ruff (BLE001) finds every handler of Exception that neither raises again nor logs; each is allowed by its own line."""
    unexplained: list[str] = []
    files: set[str] = set()
    for path in source_files(*PACKAGES):
        place = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"noqa:.*BLE", line):
                files.add(place)
                if not re.search(r"noqa: BLE001 +(- )?\w+ \w+", line):
                    unexplained.append(f"{place}:{number}")
            if re.search(r"#\s*(type|pyright): ignore\s*$", line):
                unexplained.append(f"{place}:{number}")
    assert not unexplained, f"write `# noqa: BLE001 - the reason`, and name the rule of every ignore: {unexplained}"
    assert files <= set(BROAD_HANDLERS), f"not a place for broad handlers: {sorted(files - set(BROAD_HANDLERS))}"
    assert set(BROAD_HANDLERS) <= files, f"no broad handler there any more, take off the list: {sorted(set(BROAD_HANDLERS) - files)}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in source_files("tests")])
def test_tests_wait_for_events_not_for_time(path: Path) -> None:
    if path.name in {"conftest.py", "test_conftest.py"}:
        return  # the watch itself, which must know time.sleep to forbid it
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marked = {
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("blocks_loop" in ast.unparse(decorator) for decorator in function.decorator_list)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
    }
    banned = {"time.sleep", "asyncio.wait_for"}
    wrong = [f"line {line}: {name}" for name, line in calls(tree) if name in banned and line not in marked]
    # In a module that runs its tests in a simulation, time is virtual: a sleep there waits for an instant, not for the machine.
    virtual = any(isinstance(node, ast.Name) and node.id in {"Simulation", "run_progression"} for node in ast.walk(tree))
    for node in () if virtual else ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"asyncio.sleep", "anyio.sleep"} and node.args:
            seconds = getattr(node.args[0], "value", None)
            if isinstance(seconds, int | float) and 0 < seconds < 10 and node.lineno not in marked:
                wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not wrong, "wait for an event or a condition (sleep(0) is fine; mark a test that must sleep):\n  " + "\n  ".join(wrong)


def committed_texts() -> Iterator[tuple[Path, str]]:
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".md", ".toml", ".in", ".txt", ".yml", ".yaml", ".html", ".js", ".css", ""}
    skipped = {".git", ".venv", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix in suffixes and not skipped & set(parts) and not any(p.endswith(".egg-info") for p in parts):
            yield path, path.read_text(encoding="utf-8", errors="replace")


def test_no_text_names_a_registry_or_a_path_of_one_machine() -> None:
    hosts = re.compile(
        r"py" r"pi\.org|python" r"hosted\.org|--(extra-)?index" r"-url|npm" r"js\.(org|com)|(?<![\w.])/(home/[a-z]+|wo" r"rk)/"
    )
    wrong = [f"{path.relative_to(ROOT)}: {found.group()!r}" for path, text in committed_texts() if (found := hosts.search(text))]
    assert not wrong, "\n".join(wrong)
