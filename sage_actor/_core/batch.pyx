"""Batch: the unit that moves between tasks. Marker: what travels between batches."""

cimport cython

END = 1
WATERMARK = 2
BARRIER = 3
IDLE = 4

_NAMES = {END: "END", WATERMARK: "WATERMARK", BARRIER: "BARRIER", IDLE: "IDLE"}


cdef inline bint _same_column(list mine, list theirs) noexcept:
    return (mine is None) == (theirs is None)


@cython.freelist(128)
cdef class Batch:
    """Records as parallel columns; absent columns are None. The contract is in batch.pyi."""

    def __init__(self, values, list keys=None, list timestamps=None, list tags=None, long long position=-1, list watermarks=None):
        self.values = values
        self.keys = keys
        self.timestamps = timestamps
        self.tags = tags
        self.position = position
        self.watermarks = watermarks

    def __len__(self):
        return len(self.values)

    def extend(self, Batch other not None) -> bool:
        cdef Py_ssize_t before
        if type(self.values) is not list or type(other.values) is not list:
            return False
        if not (_same_column(self.keys, other.keys) and _same_column(self.timestamps, other.timestamps)
                and _same_column(self.tags, other.tags) and _same_column(self.watermarks, other.watermarks)):
            return False
        before = len(<list> self.values)
        if before == 0:
            self.position = other.position
        elif len(<list> other.values) and (self.position < 0 or other.position != self.position + before):
            self.position = -1
        (<list> self.values).extend(<list> other.values)
        if self.keys is not None:
            self.keys.extend(other.keys)
        if self.timestamps is not None:
            self.timestamps.extend(other.timestamps)
        if self.tags is not None:
            self.tags.extend(other.tags)
        if self.watermarks is not None:
            self.watermarks.extend(other.watermarks)
        return True

    def __reduce__(self):
        return Batch, (self.values, self.keys, self.timestamps, self.tags, self.position, self.watermarks)

    def __repr__(self):
        columns = [name for name, column in (("keys", self.keys), ("timestamps", self.timestamps), ("tags", self.tags),
                                                 ("watermarks", self.watermarks))
                   if column is not None]
        extra = f" with {', '.join(columns)}" if columns else ""
        return f"<Batch of {len(self.values)} records{extra}, position {self.position}>"


@cython.freelist(32)
cdef class Marker:
    """END of input, WATERMARK(value), BARRIER(value) or IDLE. The contract is in batch.pyi."""

    def __init__(self, int kind, long long value=0):
        self.kind = kind
        self.value = value

    def __reduce__(self):
        return Marker, (self.kind, self.value)

    def __repr__(self):
        return f"<{_NAMES.get(self.kind, self.kind)} {self.value}>"

    def __eq__(self, other):
        if type(other) is not Marker:
            return NotImplemented
        return self.kind == (<Marker> other).kind and self.value == (<Marker> other).value

    def __hash__(self):
        return hash((self.kind, self.value))
