"""Structured log events with job and operator bound, through the standard `logging`.

An application that has set up `logging` itself gets our events there, bound values in ``extra``; it need not call
`configure`. structlog is loaded at the first call of either function, and its process-wide configuration is left alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO, cast

from sage_actor.errors import ConfigError

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

__all__ = ["configure", "get_logger"]

ROOT = "sage_actor"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class _Output(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs; a class of its own, so that it finds and replaces its last one."""


def configure(level: str = "INFO", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Write the events of sage_actor, and nobody else's, to a stream (default: stderr), a line each.

    Covers `get_logger`, `FunctionContext.logger` and the runtime's own loggers. Calling it again replaces level, form and
    stream. Handlers of the root logger do not see these events any more.

    Args:
        level: DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case.
        json: a JSON object a line (``timestamp``, ``level``, ``logger``, ``event``, ``job``, ``operator``, ...) instead of text.
        stream: where to write.

    Raises:
        ConfigError: no such level.
    """
    if level.upper() not in LEVELS:
        raise ConfigError("log_level", f"no level {level!r}; choose one of {', '.join(LEVELS)}")
    from structlog import dev, processors, stdlib

    out = sys.stderr if stream is None else stream
    shape: list[Any]
    if json:
        shape = [processors.format_exc_info, processors.JSONRenderer()]
    else:
        shape = [dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=dev.plain_traceback)]
    handler = _Output(out)
    handler.setFormatter(
        stdlib.ProcessorFormatter(
            foreign_pre_chain=[stdlib.add_log_level, stdlib.add_logger_name, stdlib.ExtraAdder(), _timestamp],
            processors=[stdlib.ProcessorFormatter.remove_processors_meta, *shape],
        )
    )
    root = logging.getLogger(ROOT)
    for old in [old for old in root.handlers if isinstance(old, _Output)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


def get_logger(*, job: str = "", operator: str = "", **values: object) -> BoundLogger:
    """A logger whose events carry the given values: ``log.info("file skipped", path=path)``.

    ``log.bind(task=1)`` answers one with more. Names that `logging` keeps for itself (``name``, ``args``...) get an underscore.
    """
    import structlog

    bound: dict[str, object] = {key: value for key, value in (("job", job), ("operator", operator)) if value}
    logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.job"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _avoid_reserved,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("BoundLogger", logger.bind(**bound, **values))


def _avoid_reserved(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # logging refuses extras that would overwrite a record's own fields; what render_to_log_kwargs takes out itself stays.
    for key in _RESERVED.intersection(event) - {"exc_info", "stack_info"}:
        event[f"{key}_"] = event.pop(key)
    return event


def _timestamp(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record: logging.LogRecord = event["_record"]
    event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event
