"""Lane: a bounded FIFO, and the line of putters that wait for room in it. Used from Cython only (see batch_queue.pyi)."""

class Lane:
    def __init__(self, name: str, capacity: int, capacity_bytes: int) -> None: ...
