"""Sources and sinks for what lies outside: files, SQLite and the console."""

from __future__ import annotations

from sage_actor.connectors.console import ConsoleSink
from sage_actor.connectors.file_sink import FileSink
from sage_actor.connectors.file_source import FileSource
from sage_actor.connectors.sqlite_sink import SqliteSink
from sage_actor.connectors.transactional_file_sink import TransactionalFileSink

__all__ = ["ConsoleSink", "FileSink", "FileSource", "SqliteSink", "TransactionalFileSink"]
