"""Supervision rules and the Backend protocol: what hosts actors and tasks. Knows nothing of streams."""
