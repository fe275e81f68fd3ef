"""Work beside the event loop: pools of threads and processes with bounded admission, and memory that is set aside for it."""
