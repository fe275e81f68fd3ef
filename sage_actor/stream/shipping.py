"""A described dataflow as bytes, for a supervisor in another process."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from sage_actor.actor.portable import dump
from sage_actor.errors import SerializationError
from sage_actor.runtime.shipping import PICKLING_ERRORS, blame

if TYPE_CHECKING:
    from sage_actor.stream.environment import Environment, EnvironmentBase

__all__ = ["pack", "unpack"]


def pack(env: EnvironmentBase) -> bytes:
    """A described dataflow as bytes: graph, name, settings, and how its load is spread.

    Raises:
        SerializationError: a function or its configuration cannot be pickled; names operator and attribute.
    """
    for operator in env.graph.operators:
        if operator.kind == "sink" and operator.options["form"] in ("collect", "deliver"):
            raise SerializationError(
                f"operator {operator.name!r}",
                "its records would be gathered in the process that runs the job; use a sink that writes somewhere",
            )
    try:
        return dump((env.name, env.settings, env.graph, env.load_balancer, env.parallelism_controller))
    except PICKLING_ERRORS as error:
        raise blame(env.graph.operators, error) from error


def unpack(data: bytes) -> Environment:
    """The async environment that `pack` packed, ready for ``await env.submit()``."""
    from sage_actor.stream.environment import Environment

    name, settings, graph, balancer, controller = pickle.loads(data)
    env = Environment(name)
    env.settings = settings
    env.graph = graph
    env.load_balancer, env.parallelism_controller = balancer, controller
    return env
