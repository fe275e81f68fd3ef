"""State of operators: tables by key, lists by task, and the handles user functions hold; frozen at a barrier, written behind the
running dataflow, restored at any parallelism."""

from __future__ import annotations
