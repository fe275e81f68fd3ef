"""Sources and sinks for what lies outside: files and the console."""

from __future__ import annotations

from sage_actor.connectors.console import ConsoleSink
from sage_actor.connectors.file_sink import FileSink
from sage_actor.connectors.file_source import FileSource

__all__ = ["ConsoleSink", "FileSink", "FileSource"]
