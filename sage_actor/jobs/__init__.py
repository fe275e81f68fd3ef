"""Jobs under a supervisor: their life cycle, their store, the process each one runs in."""
