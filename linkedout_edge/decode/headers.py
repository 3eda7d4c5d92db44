"""Reads headers of video streams for what decoding libraries do not report.

OpenCV converts some streams wrongly without saying so, and crashes on others (docs/decoding.md). What makes it do so
(interlacing, BT.2020 colors, a pixel format that changes on the way) stands in the first bits of a stream's headers:
sequence parameter sets of H.264 (ITU-T H.264, 7.3.2.1) and HEVC (ITU-T H.265, 7.3.2.2), sequence headers of MPEG-2
(ITU-T H.262, 6.2.2), video object layers of MPEG-4 (ISO/IEC 14496-2, 6.2.3), frame headers of VP9 and JPEG.

H.264 and HEVC can also carry how the picture is to be held (the message "display orientation"), which PyAV passes on
in part only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from linkedout_edge.decode import vp9
from linkedout_edge.decode.bits import Bits
from linkedout_edge.decode.orientation import Orientation

__all__ = ["UNSPECIFIED", "Colors", "Format", "display_orientation", "read_format", "without_colors"]


class Colors(NamedTuple):
    """Code points of ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int


UNSPECIFIED = Colors(2, 2, 2)
BT2020 = 9
"""Both the primaries and the (non-constant luminance) matrix."""


class Format(NamedTuple):
    """What may not change within a stream.

    Attributes:
        pixels: Whatever tells pixel formats apart; only compared.
        width: 0 where the header does not say.
        height: 0 where the header does not say.
        interlaced: Whether frames may consist of two fields.
        colors: As stated.
    """

    pixels: tuple[int, ...]
    width: int = 0
    height: int = 0
    interlaced: bool = False
    colors: Colors = UNSPECIFIED


def _units(data: bytes) -> Iterator[bytes]:
    """Units between start codes, or behind lengths of four bytes (as MP4 and Matroska store them)."""
    if not data.startswith((b"\0\0\1", b"\0\0\0\1")):
        at = 0
        while at + 4 < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            yield data[at + 4 : at + 4 + length]
            at += 4 + length
        return
    start = data.find(b"\0\0\1")
    while start >= 0:
        end = data.find(b"\0\0\1", start + 3)
        yield data[start + 3 : end if end >= 0 else len(data)].rstrip(b"\0")
        start = end


# -- H.264 and HEVC ------------------------------------------------------------------------------------------------


class _Parsed(NamedTuple):
    format: Format
    colors_at: int | None  # first bit of the three code points


def _colors(bits: Bits) -> tuple[Colors, int | None]:
    """The start of the "video usability information", which is the same in both."""
    if bits.u(1) and bits.u(8) == 255:
        bits.skip(32)
    if bits.u(1):
        bits.skip(1)
    if not bits.u(1):
        return UNSPECIFIED, None
    bits.skip(4)
    if not bits.u(1):
        return UNSPECIFIED, None
    at = bits.at
    return Colors(bits.u(8), bits.u(8), bits.u(8)), at


_H264_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


def _h264_sps(unit: bytes) -> _Parsed:
    bits = Bits(unit, escaped=True)
    bits.skip(8)
    profile = bits.u(8)
    bits.skip(16)
    bits.ue()
    chroma, depth = 1, 0
    if profile in _H264_WITH_CHROMA:
        chroma = bits.ue()
        if chroma == 3:
            bits.skip(1)
        depth = bits.ue()
        bits.ue()
        bits.skip(1)
        if bits.u(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _h264_scaling_list(bits, 16 if i < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.skip(1)
        bits.ue()
        bits.ue()
        for _ in bits.many(bits.ue(), 256):
            bits.ue()
    bits.ue()
    bits.skip(1)
    width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
    progressive = bits.u(1)
    if not progressive:
        bits.skip(1)
    bits.skip(1)
    if bits.u(1):
        for _ in range(4):
            bits.ue()
    colors, at = _colors(bits) if bits.u(1) else (UNSPECIFIED, None)
    found = Format((chroma, depth), width, height * (2 - progressive), not progressive, colors)
    return _Parsed(found, at)


def _h264_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.ue()
            following = (last + (code + 1 >> 1) * (1 if code & 1 else -1)) % 256
        last = following or last


def _hevc_sps(unit: bytes) -> _Parsed:
    bits = Bits(unit, escaped=True)
    bits.skip(16 + 4)
    layers = bits.u(3)
    bits.skip(1)
    bits.skip(8 + 32 + 1)
    interlaced = bits.u(1)
    bits.skip(2 + 43 + 1 + 8)
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    bits.skip(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3:
        bits.skip(1)
    width, height = bits.ue(), bits.ue()
    if bits.u(1):
        for _ in range(4):
            bits.ue()
    depth = bits.ue()
    bits.ue()
    order = bits.ue() + 4
    for _ in range(layers + 1 if bits.u(1) else 1):
        for _ in range(3):
            bits.ue()
    for _ in range(6):
        bits.ue()
    if bits.u(1) and bits.u(1):
        _hevc_scaling_lists(bits)
    bits.skip(2)
    if bits.u(1):
        bits.skip(8)
        bits.ue()
        bits.ue()
        bits.skip(1)
    deltas: list[int] = []
    for i in bits.many(bits.ue()):
        deltas.append(_hevc_reference_set(bits, i, deltas))
    if bits.u(1):
        for _ in bits.many(bits.ue()):
            bits.skip(order + 1)
    bits.skip(2)
    colors, at = UNSPECIFIED, None
    if bits.u(1):
        colors, at = _colors(bits)
        if bits.u(1):
            bits.ue()
            bits.ue()
        bits.skip(1)
        interlaced |= bits.u(1)  # each picture is a field
    return _Parsed(Format((chroma, depth), width, height, bool(interlaced), colors), at)


def _hevc_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.u(1):
                bits.ue()
                continue
            if size > 1:
                bits.ue()
            for _ in range(min(64, 1 << 4 + 2 * size)):
                bits.ue()


def _hevc_reference_set(bits: Bits, index: int, before: list[int]) -> int:
    """Skip a set of reference pictures; how many it has."""
    if index and bits.u(1):
        bits.skip(1)
        bits.ue()
        used = 0
        for _ in range(before[index - 1] + 1):
            used += 1 if bits.u(1) else bits.u(1)
        return used
    count = bits.ue() + bits.ue()
    for _ in bits.many(count, 32):
        bits.ue()
        bits.skip(1)
    return count


class _Family(NamedTuple):
    kind: Callable[[bytes], int]  # type of a unit, -1 for units of other layers
    header: int  # bytes before the contents
    sps: int
    messages: tuple[int, ...]
    parse: Callable[[bytes], _Parsed]


_FAMILIES = {
    "h264": _Family(lambda unit: unit[0] & 31, 1, 7, (6,), _h264_sps),
    "hevc": _Family(lambda unit: -1 if unit[0] & 1 or unit[1] >> 3 else unit[0] >> 1 & 63, 2, 33, (39, 40), _hevc_sps),
}


def _of_kind(codec: str, data: bytes, kinds: tuple[int, ...]) -> Iterator[bytes]:
    family = _FAMILIES[codec]
    return (unit for unit in _units(data) if len(unit) > family.header and family.kind(unit) in kinds)


def without_colors(codec: str, packet: bytes) -> list[tuple[bytes, bytes]]:
    """Units that state colors: as they lie in the file, and the same with colors "unspecified"."""
    found: list[tuple[bytes, bytes]] = []
    if codec not in _FAMILIES:
        return found
    family = _FAMILIES[codec]
    for unit in _of_kind(codec, packet, (family.sps, *family.messages)):
        bits = Bits(unit, escaped=True)
        if family.kind(unit) == family.sps:
            at, values = family.parse(unit).colors_at, len(UNSPECIFIED)
        else:
            at, values = _message(codec, bits, _OTHER_TRANSFER), 1
        if at is None:
            continue
        changed = bytearray(unit)
        for i in range(8 * values):
            byte, bit = bits.position(at + i)
            changed[byte] = changed[byte] & ~(1 << bit) | (UNSPECIFIED[i // 8] >> (7 - i % 8) & 1) << bit
        found.append((unit, bytes(changed)))
    return found


_DISPLAY_ORIENTATION, _OTHER_TRANSFER = 47, 147
"""Kinds of messages. The second states HLG in streams whose headers name an older curve that looks nearly right."""


def display_orientation(codec: str, packet: bytes) -> Orientation | None:
    """What the message "display orientation" says, None where there is none (H.264, D.2.27; HEVC, D.3.17)."""
    if codec not in _FAMILIES:
        return None
    for unit in _of_kind(codec, packet, _FAMILIES[codec].messages):
        bits = Bits(unit, escaped=True)
        if _message(codec, bits, _DISPLAY_ORIENTATION) is None:
            continue
        try:
            if bits.u(1):  # cancelled
                return None
            mirror_x, mirror_y = bool(bits.u(1)), bool(bits.u(1))
            return Orientation.turned(bits.u(16) * 360 / 65536, mirror_x=mirror_x, mirror_y=mirror_y)
        except IndexError:
            continue
    return None


def _message(codec: str, bits: Bits, wanted: int) -> int | None:
    """First bit of the contents of a message of that kind, where `bits` then stands; None where the unit has none."""
    bits.skip(8 * _FAMILIES[codec].header)
    try:
        while True:
            kind, size = _message_number(bits), _message_number(bits)
            if kind == wanted:
                bits.position(bits.at + 8 * size - 1)  # all there
                return bits.at
            bits.skip(8 * size)
    except IndexError:  # the end of the unit
        return None


def _message_number(bits: Bits) -> int:
    total = 0
    while (byte := bits.u(8)) == 255:
        total += 255
    return total + byte


def _parameter_sets(codec: str, packet: bytes) -> list[Format]:
    """Formats that a packet's parameter sets state, with the transfer curve that a message names instead."""
    family = _FAMILIES[codec]
    found = [family.parse(unit).format for unit in _of_kind(codec, packet, (family.sps,))]
    for unit in _of_kind(codec, packet, family.messages):
        bits = Bits(unit, escaped=True)
        if found and _message(codec, bits, _OTHER_TRANSFER) is not None:
            transfer = bits.u(8)
            found = [one._replace(colors=one.colors._replace(transfer=transfer)) for one in found]
    return found


# -- others --------------------------------------------------------------------------------------------------------


def _mpeg2(packet: bytes) -> Format | None:
    at = packet.find(b"\0\0\1\xb3")
    if at < 0:
        return None
    bits = Bits(packet[at + 4 : at + 12])
    width, height = bits.u(12), bits.u(12)
    extension = packet.find(b"\0\0\1\xb5", at)
    if extension < 0 or packet[extension + 4] >> 4 != 1:  # MPEG-1
        return Format((1,), width, height)
    bits = Bits(packet[extension + 4 :])
    bits.skip(12)
    progressive, chroma = bits.u(1), bits.u(2)
    return Format((chroma,), width | bits.u(2) << 12, height | bits.u(2) << 12, not progressive)


def _mpeg4(packet: bytes) -> Format | None:
    at = next((i for i in range(len(packet) - 4) if packet[i : i + 3] == b"\0\0\1" and packet[i + 3] >> 4 == 2), -1)
    if at < 0:
        return None
    bits = Bits(packet[at + 4 :])
    bits.skip(1 + 8)
    version = 1
    if bits.u(1):
        version = bits.u(4)
        bits.skip(3)
    if bits.u(4) == 15:
        bits.skip(16)
    if bits.u(1):
        bits.skip(3)
        if bits.u(1):
            bits.skip(79)
    shape = bits.u(2)
    if shape == 3 and version != 1:
        bits.skip(4)
    bits.skip(1)
    resolution = bits.u(16)
    bits.skip(1)
    if bits.u(1):
        bits.skip(max(1, (resolution - 1).bit_length()))
    if shape:
        raise ValueError("MPEG-4 of a shape that is no rectangle")
    bits.skip(1)
    width = bits.u(13)
    bits.skip(1)
    height = bits.u(13)
    bits.skip(1)
    return Format((1,), width, height, bool(bits.u(1)))


def _vp9(packet: bytes) -> Format | None:
    header = vp9.read_header(Bits(packet))
    if header is None or not header.key:
        return None
    colors = Colors(BT2020, 2, BT2020) if header.space == 5 else UNSPECIFIED
    return Format((*header.pixels, header.space == vp9.RGB), header.width, header.height, colors=colors)


def _jpeg(packet: bytes) -> Format | None:
    at = 2
    found = None
    while at + 9 <= len(packet) and packet[at] == 0xFF:
        marker = packet[at + 1]
        if marker == 0xDA:  # pixels; another picture behind them is the second field
            return found and found._replace(interlaced=b"\xff\xd8\xff" in packet[at:])
        if marker in (0xC0, 0xC1, 0xC2, 0xC3):
            bits = Bits(packet[at + 4 :])
            depth, height, width = bits.u(8), bits.u(16), bits.u(16)
            sampling = [bits.u(24) >> 8 & 255 for _ in bits.many(bits.u(8), 4)]
            found = Format((depth, *sampling), width, height)
        at += 1 if marker == 0xFF else 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return found


_OTHERS: dict[str, Callable[[bytes], Format | None]] = {
    "mpeg2": _mpeg2,
    "mpeg4": _mpeg4,
    "vp9": _vp9,
    "mjpeg": _jpeg,
}

KNOWN = (*_FAMILIES, *_OTHERS)


def read_format(codec: str, packet: bytes) -> Format | None:
    """The format that a packet's headers state, None where it has none.

    Args:
        codec: one of `KNOWN`.
        packet: a compressed frame, or a decoder's configuration, with start codes.

    Raises:
        ValueError: headers that cannot be read.
    """
    try:
        if codec in _FAMILIES:
            found = _parameter_sets(codec, packet)
            if len(set(found)) > 1:
                raise ValueError("parameter sets that contradict each other")
            return found[0] if found else None
        return _OTHERS[codec](packet)
    except IndexError:
        raise ValueError("headers that are cut off") from None
