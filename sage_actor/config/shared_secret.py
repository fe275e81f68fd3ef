"""The secret that the machines of one cluster share: workers started elsewhere do only what was signed with it."""

from __future__ import annotations

from sage_actor.config.environment import environment
from sage_actor.config.paths import redis_secret_file
from sage_actor.config.secret_files import LEAST, obtain_secret
from sage_actor.errors import ConfigError

__all__ = ["obtain_shared_secret"]

_VARIABLE = "SAGE_ACTOR_SECRET"


def obtain_shared_secret() -> str:
    """``SAGE_ACTOR_SECRET`` if set, else the file ``redis.secret`` of this account, written at the first call.

    The entry point ``redis`` of the group ``sage_actor.secrets``: the layers below find it by that name.

    Raises:
        ConfigError: it is too short to keep anybody out, or the file cannot be used; see `obtain_secret`.
    """
    given = environment(_VARIABLE)
    if given is None:
        return obtain_secret("redis.secret", redis_secret_file())
    if len(given) < LEAST:
        raise ConfigError("redis.secret", f"it has fewer than {LEAST} characters; use a long random text, the same everywhere", _VARIABLE)
    return given
