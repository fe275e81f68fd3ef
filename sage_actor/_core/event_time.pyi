"""Columns of watermarks, computed and combined in C."""

def running_watermarks(timestamps: list[int], delay: int, watermark: int, limit: int) -> tuple[list[int], int]:
    """The watermark in force right before each record, and the one after the last.

    `watermark` is in force before the first. A record moves it to timestamp - delay - 1 if that is higher; one beyond `limit`
    does not. Never wraps. Raises TypeError(text, index) for what is no int of 64 bits.
    """

def combined_watermarks(column: list[int], others: int, least: int) -> list[int]:
    """``max(least, min(value, others))`` of each; the column itself where that changes nothing. The column never falls."""
