"""The content of a `KeyedFold` as it was at one moment, drained while the fold goes on. The contract is in frozen_fold.pyi.

Nothing is copied when it is frozen. An entry that changes before it has been drained is kept first, as it was.
"""

from sage_actor._core.keyed cimport KeyedFold

cdef Py_ssize_t SLICE = 1000


cdef class FrozenFold:
    """An iterator over slices of (key, accumulator)."""

    cdef KeyedFold fold
    cdef bytes numbers      # entries to give, as an array of Py_ssize_t; None for all
    cdef Py_ssize_t count   # entries there were
    cdef Py_ssize_t total   # entries to give
    cdef Py_ssize_t next    # the first not given yet
    cdef dict kept          # by number: accumulators that have changed since
    cdef list detached      # what is left to give, once the fold has been emptied
    cdef public object copy # applied to what is kept, where accumulators can change in place

    def __init__(self, KeyedFold fold not None, Py_ssize_t count, bytes numbers):
        self.fold = fold
        self.count = count
        self.numbers = numbers
        self.total = count if numbers is None else len(numbers) // <Py_ssize_t> sizeof(Py_ssize_t)
        self.kept = {}

    def __iter__(self):
        return self

    cdef Py_ssize_t number_at(self, Py_ssize_t index) noexcept:
        return index if self.numbers is None else (<Py_ssize_t*> <char*> self.numbers)[index]

    cdef list take(self, Py_ssize_t amount):
        cdef list entries = []
        cdef Py_ssize_t at, index
        cdef Py_ssize_t stop = min(self.total, self.next + amount)
        for index in range(self.next, stop):
            at = self.number_at(index)
            if self.kept and at in self.kept:
                value = self.kept.pop(at)
            else:
                value = self.fold.accumulator_of(at)
            entries.append((<object> self.fold.table.entries[at].key, value))
        self.next = stop
        return entries

    def __next__(self):
        cdef list entries
        if self.detached is not None:
            entries, self.detached = self.detached[:SLICE], self.detached[SLICE:]
        elif self.fold is None:
            entries = []
        else:
            entries = self.take(SLICE)
        if not entries:
            self.close()
            raise StopIteration
        return entries

    def keep(self, Py_ssize_t at, accumulator) -> None:
        if at < self.count:
            self.kept[at] = accumulator if self.copy is None else self.copy(accumulator)

    def detach(self) -> None:
        if self.fold is not None and self.detached is None:
            self.detached = self.take(self.total)
            self.fold.thaw()
            self.fold = None

    def close(self) -> None:
        if self.fold is not None and self.fold.frozen is self:
            self.fold.thaw()
        self.fold = None
        self.detached = None
        self.kept = {}
