"""The backends that come with sage_actor; each is found by name through the entry-point group ``sage_actor.backends``."""

from __future__ import annotations

if __name__ != "sage_actor.backends":
    # The folder lies at the top of the repository and is installed as sage_actor.backends. Under any other name it would be
    # a second copy of every class here, unequal to the first.
    raise ImportError(f"{__name__!r} is a second copy of sage_actor.backends; import it as sage_actor.backends")
