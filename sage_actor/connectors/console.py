"""ConsoleSink: records to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

from sage_actor.connectors.off_loop import OffLoop
from sage_actor.connectors.options import ConsoleSinkKeywords, ConsoleSinkOptions
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import Sink
from sage_actor.errors import ConnectorError

__all__ = ["ConsoleSink"]


class ConsoleSink(Sink[object]):
    """Shows every record as ``str(record)`` in a line of its own on standard output, a batch per write.

    Args:
        prefix: text before every record ("").

    Writing happens off the event loop: a slow terminal or pipe slows the dataflow down and nothing else. Characters that
    the terminal cannot show are written as escapes. In a worker process the output goes where that process's output goes.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, **keywords: Unpack[ConsoleSinkKeywords]) -> None:
        self._options = ConsoleSinkOptions.parse(options, keywords)
        self._call: OffLoop[None] = OffLoop()

    async def open(self, context: FunctionContext) -> None:
        """Raises `ConnectorError` if this process has no standard output."""
        if _missing():
            raise ConnectorError("standard output", "this process has none", "write to a file instead: FileSink")

    async def write(self, batch: Sequence[object]) -> None:
        """Show the records; returns when they are handed to the operating system.

        A batch is shown even if the wait for it is cancelled. Raises `ConnectorError` if the reader has gone away.
        """
        await self.flush()
        if batch:
            prefix = self._options.prefix
            text = "".join([f"{prefix}{record}\n" for record in batch])
            self._call.start(partial(_show, text))
            await self.flush()

    async def flush(self) -> None:
        """Return when everything is shown."""
        if self._call.started:
            await self._call.wait()
            self._call.take()

    async def close(self) -> None:
        """Wait for what is being shown. Standard output stays open."""
        await self._call.finish(lambda: None)


def _missing() -> bool:
    output: object = sys.stdout  # None in a process without a console, whatever the type says
    return output is None


def _show(text: str) -> None:
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError as error:
        _silence()
        reason = "the program that reads the output has ended"
        raise ConnectorError("standard output", reason, "let it read to the end, or write to a file: FileSink") from error
    except (OSError, ValueError) as error:  # ValueError: somebody closed it
        raise ConnectorError("standard output", f"cannot be written: {error}", "write to a file instead: FileSink") from error


def _silence() -> None:
    """Let the interpreter's last flush at exit go nowhere; it would print a traceback about the broken pipe."""
    try:
        target = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):
        return
    os.dup2(nowhere, target)
    os.close(nowhere)
