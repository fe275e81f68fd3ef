"""Checkpoints and savepoints as they are kept: a log of attempts and manifests that only grows, and the files these name.

Knows nothing of dataflows: when to take one, and what is in it, is decided above.
"""

from __future__ import annotations
