"""Headers of VP9 frames, and decoding without the loop filter (VP9 Bitstream & Decoding Process Specification 0.7).

The loop filter smooths the edges of blocks. FFmpeg can leave it out for H.264, HEVC and VP8, but not for VP9, where it
takes up to half of the time. How strong it is stands in each frame's header, in six bits at a fixed place; where
they are zero, decoders do not filter. So writing zeros there has the same effect.
"""

from __future__ import annotations

from typing import NamedTuple

from linkedout_edge.decode.bits import Bits

__all__ = ["RGB", "Header", "read_header", "without_loop_filter"]

RGB = 7
"""The color space, as VP9 numbers them."""

_SYNC_CODE = 0x498342
_HEADER_BYTES = 24
"""The filter's strength stands within so many bytes."""

_STRENGTH_BITS = 6


class Header(NamedTuple):
    """The first part of a frame's header.

    Attributes:
        pixels: Bits of a value less than 10, 10 or 12 (0, 1, 2), and how colors are subsampled; compared only.
        space: Color space; 0 where the header does not say.
        width: 0 where it is that of an earlier frame.
        height: The same.
        key: Whether this is a key frame.
        strength_at: The first of the bits that tell how strong the loop filter is.
    """

    pixels: tuple[int, int]
    space: int
    width: int
    height: int
    key: bool
    strength_at: int


def read_header(bits: Bits) -> Header | None:
    """Read a frame's header (6.2) up to the loop filter; None if this is no frame, or a former frame is shown again.

    Raises:
        IndexError: the header is cut off.
    """
    if bits.u(2) != 2:
        return None
    profile = bits.u(1) | bits.u(1) << 1
    if profile == 3:
        bits.skip(1)
    if bits.u(1):
        return None
    key = not bits.u(1)
    shown, resilient = bits.u(1), bits.u(1)
    pixels, space, width, height = (0, 3), 0, 0, 0
    intra = key or (not shown and bits.u(1) == 1)
    if not key and not resilient:
        bits.skip(2)  # which contexts are reset
    if intra:
        if bits.u(24) != _SYNC_CODE:
            return None
        if key or profile > 0:
            pixels, space = _colors(bits, profile)
        if not key:
            bits.skip(8)  # which frames are replaced
        width, height = bits.u(16) + 1, bits.u(16) + 1
    else:
        bits.skip(8 + 3 * 4)  # which frames are replaced, and which are referred to
        if not any(bits.u(1) for _ in range(3)):  # as large as one of these
            width, height = bits.u(16) + 1, bits.u(16) + 1
    if bits.u(1):  # another size to be shown at
        bits.skip(32)
    if not intra:
        bits.skip(1)
        if not bits.u(1):
            bits.skip(2)  # interpolation
    if not resilient:
        bits.skip(2)
    bits.skip(2)  # contexts
    return Header(pixels, space, width, height, key, bits.at)


def _colors(bits: Bits, profile: int) -> tuple[tuple[int, int], int]:
    depth = 1 + bits.u(1) if profile >= 2 else 0
    space = bits.u(3)
    if space == RGB:
        bits.skip(profile & 1)
        return (depth, 0 if profile & 1 else 3), space
    bits.skip(1)
    chroma = bits.u(2) if profile & 1 else 3
    bits.skip(profile & 1)
    return (depth, chroma), space


def without_loop_filter(packet: memoryview) -> None:
    """Let a packet's frames be decoded without the loop filter. What cannot be read stays as it is.

    Args:
        packet: bytes, which are changed. One frame, or several with an index at the end (annex B).
    """
    for start, size in _frames(packet):
        head = bytes(packet[start : start + min(size, _HEADER_BYTES)])
        try:
            header = read_header(Bits(head))
        except IndexError:
            continue
        if header is None or header.strength_at + _STRENGTH_BITS > 8 * len(head):
            continue
        value = int.from_bytes(head, "big")
        after = 8 * len(head) - header.strength_at - _STRENGTH_BITS
        value &= ~(((1 << _STRENGTH_BITS) - 1) << after)
        packet[start : start + len(head)] = value.to_bytes(len(head), "big")


def _frames(packet: memoryview) -> list[tuple[int, int]]:
    """Where each frame begins, and its bytes."""
    marker = packet[-1] if len(packet) else 0
    if marker >> 5 == 0b110:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = len(packet) - 2 - count * width
        if index >= 0 and packet[index] == marker:
            found, start = [], 0
            for at in range(index + 1, len(packet) - 1, width):
                size = int.from_bytes(packet[at : at + width], "little")
                found.append((start, min(size, max(0, index - start))))
                start += size
            return found
    return [(0, len(packet))]
