"""Slices of rows, so many that arrays made for each of them stay small."""

from collections.abc import Iterator

_BLOCK_ENTRIES = 2**22  # entries of the largest array made at once


def slices(number: int, entries: int, most: int | None = None) -> Iterator[slice]:
    """Slices of so many rows, with so many entries made for each, and no more than `most` for a slice, if given."""
    size = max(1, (most or _BLOCK_ENTRIES) // max(1, entries))
    if 0 < number <= size:
        return iter((slice(0, number),))
    return (slice(start, min(start + size, number)) for start in range(0, number, size))
