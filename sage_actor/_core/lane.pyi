"""A bounded FIFO, and the line of putters that wait for room in it: what mailboxes and gates are made of."""

class Lane:
    """Used from Cython only; batch_queue.pyi says what its users see."""

    def __init__(self, name: str, capacity: int, capacity_bytes: int) -> None: ...

class PriorityLane(Lane):
    """Used from Cython only: the least key leaves first."""
