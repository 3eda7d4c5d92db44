"""What a terminal can show: ASCII without UTF-8, and no colours if NO_COLOR is set."""

from __future__ import annotations

import codecs
import io
import os
import sys

_PLAIN = {
    **dict(zip("▁▂▃▄▅▆▇█", ".:-=+*#@", strict=True)),
    **{"→": "->", "←": "<-", "·": "-", "–": "-", "×": "x", "−": "-", "…": "...", "≥": ">=", "≤": "<="},
    **{"✓": "+", "✗": "x", "“": '"', "”": '"', "’": "'", "°": " deg ", "±": "+/-", "Σ": "sum", "\ufffd": "?"},
}
"""What stands for the characters that the commands print; whatever else a terminal cannot show becomes an escape."""
_ERRORS, _ASCII = "linkedout_plain", "linkedout_ascii"


def prepare() -> None:
    """Let standard output and error take any text, whatever their encoding, and pass each line on at once."""
    codecs.register_error(_ERRORS, _plain)
    codecs.register(_codec)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if ascii_only else None, errors=_ERRORS, line_buffering=True)


def no_color() -> bool:
    """Whether the user asked for plain text (no-color.org); then there is no bold either."""
    return bool(os.environ.get("NO_COLOR"))


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def _codec(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name: click takes a stream called ASCII for a mistake, and writes UTF-8 to it."""
    if name != _ASCII:
        return None
    a = codecs.lookup("ascii")
    return codecs.CodecInfo(
        a.encode, a.decode, a.streamreader, a.streamwriter, a.incrementalencoder, a.incrementaldecoder, name=_ASCII
    )
