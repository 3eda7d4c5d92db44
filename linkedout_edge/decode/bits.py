"""Reads headers of video streams bit by bit."""

from __future__ import annotations

__all__ = ["Bits"]


class Bits:
    """Reads bits, most significant first. Beyond the end it raises IndexError.

    Args:
        data: Bytes of a unit.
        escaped: Whether a 3 behind two zero bytes is only there to break up start codes.
    """

    def __init__(self, data: bytes, *, escaped: bool = False) -> None:
        self._where = _unescaped(data) if escaped else range(len(data))
        self._data = bytes(data[i] for i in self._where) if escaped else data
        self.at = 0

    def u(self, count: int) -> int:
        """An unsigned number of so many bits."""
        first, self.at = self.at, self.at + count
        if self.at > 8 * len(self._data):
            raise IndexError("beyond the end")
        value = int.from_bytes(self._data[first >> 3 : (self.at + 7) >> 3], "big")
        return value >> (-self.at & 7) & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Pass over so many bits."""
        self.at += count

    def ue(self) -> int:
        """Exponential Golomb code."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("not an exponential Golomb code")
        return (1 << zeros) - 1 + self.u(zeros)

    def many(self, count: int, most: int = 64) -> range:
        """For loops whose length a file states."""
        if count > most:
            raise ValueError("a list that is too long")
        return range(count)

    def position(self, bit: int) -> tuple[int, int]:
        """Byte of the unit, and bit in it, of a bit that was read."""
        return self._where[bit >> 3], 7 - (bit & 7)


def _unescaped(data: bytes) -> list[int]:
    where, zeros = [], 0
    for i, byte in enumerate(data):
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        where.append(i)
        zeros = zeros + 1 if byte == 0 else 0
    return where
