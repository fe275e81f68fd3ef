"""``python -m sage_actor``: the supervisor process, or a command."""

from __future__ import annotations

import sys

from sage_actor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
