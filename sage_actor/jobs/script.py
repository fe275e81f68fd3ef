"""Running a person's script as ``__main__`` inside this process, the way ``python FILE`` would."""

from __future__ import annotations

import os
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from types import TracebackType

from sage_actor import seed_names

__all__ = ["ScriptEnd", "run_script"]


@dataclass(frozen=True, slots=True)
class ScriptEnd:
    """How a script's own code ended; its jobs may still run.

    Attributes:
        status: the exit status ``python FILE`` would have given.
        error: the exception it let through, None if none (or only SystemExit).
    """

    status: int
    error: BaseException | None = None

    @property
    def text(self) -> str:
        """The error in one paragraph, "" if there is none."""
        if self.error is not None:
            return "".join(traceback.format_exception_only(self.error)).strip()
        return f"the script exited with status {self.status}" if self.status else ""


def run_script(source: bytes, filename: str, args: Sequence[str] = ()) -> ScriptEnd:
    """Execute `source` as ``__main__`` with ``sys.argv = [filename, *args]``, in the calling thread.

    The module stays ``__main__`` afterwards: functions and classes of the script may still be pickled by name while its
    jobs run. The import names of SAGE's documents are served (`seed_names`). An exception is printed as a traceback of the
    script's own frames on stderr; KeyboardInterrupt passes.
    """
    seed_names.install()
    module = types.ModuleType("__main__")
    module.__file__ = filename
    module.__loader__ = SourceFileLoader("__main__", filename)  # inspect.getsource and linecache ask for it
    sys.modules["__main__"] = module
    sys.argv[:] = [filename, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(filename)))
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - running a person's own script is the task
    except SystemExit as end:
        return _exit_status(end)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a person's script raises is its result, told here and in the status
        traceback.print_exception(type(error), error, _own_frames(error.__traceback__, filename))
        return ScriptEnd(1, error)
    return ScriptEnd(0)


def _exit_status(end: SystemExit) -> ScriptEnd:
    if end.code is None:
        return ScriptEnd(0)
    if isinstance(end.code, int):
        return ScriptEnd(end.code & 0xFF)
    sys.stderr.write(f"{end.code}\n")  # what the interpreter does with sys.exit("text")
    return ScriptEnd(1)


def _own_frames(trace: TracebackType | None, filename: str) -> TracebackType | None:
    """Skip our own frames above the script's first one; keep all when the script never ran (a syntax error)."""
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename != filename:
        at = at.tb_next
    return at
