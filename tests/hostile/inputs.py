"""JSON that costs the most for its bytes, and pictures that do."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

from PIL import Image

KIB, MIB = 1024, 1024 * 1024


def repeated(unit: bytes, size: int) -> bytes:
    """An array of about so many bytes, of one thing again and again."""
    return b"[" + unit * (max(1, size - 2) // len(unit)) + b"0]"


def keys(size: int) -> bytes:
    """An object of about so many bytes, of as many keys as it can have."""
    return b"{" + b",".join(b'"%x":0' % n for n in range(size // 11)) + b"}"


def deep(size: int) -> bytes:
    """Arrays in arrays."""
    return b"[" * (size // 2) + b"]" * (size // 2)


def text(unit: bytes, size: int) -> bytes:
    """One string of about so many bytes."""
    return b'"' + unit * (size // len(unit)) + b'"'


#: ``name -> (bytes) -> a JSON value``.
VALUES: dict[str, Callable[[int], bytes]] = {
    "objects": lambda size: repeated(b'{"":0},', size),
    "empty arrays": lambda size: repeated(b"[],", size),
    "numbers": lambda size: repeated(b"0,", size),
    "strings": lambda size: repeated(b'"",', size),
    "keys": keys,
    "deep": deep,
    "deep objects": lambda size: b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6),
    "a string": lambda size: text(b"a", size),
    "escapes": lambda size: text(b"\\u20ac", size),
    "1e999": lambda size: repeated(b'{"":1},', size - 8)[:-2] + b"1e999]",
    "digits": lambda size: b"[" + b"9" * (size - 2) + b"]",
    "an exponent": lambda size: b"[1e" + b"9" * (size - 4) + b"]",
    "blanks": lambda size: b"[" + b" " * (size - 2) + b"]",
    "floats": lambda size: repeated(b"1.7976931348623157e308,", size),
    "no end": lambda size: b"[" + b"{}," * ((size - 1) // 3),
}


def zipped(body: bytes) -> bytes:
    """As small on the wire as it gets."""
    return gzip.compress(body, 9)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pictures() -> dict[str, tuple[str, Callable[[], bytes]]]:
    """``name -> (media type, how it is made)``: little to send, much to draw."""

    def gif() -> bytes:
        frames = [Image.new("P", (4000, 4000), n % 2) for n in range(8)]
        return _saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=1)

    def webp_frames() -> bytes:
        frames = [Image.new("RGB", (4000, 4000), (n, 0, 0)) for n in range(4)]
        return _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=1)

    def webp() -> bytes:
        return _saved(Image.new("RGB", (16_383, 16_383)), "WEBP", lossless=True, quality=0, method=0)

    def jpeg() -> bytes:
        return _saved(Image.new("L", (20_000, 20_000)), "JPEG", progressive=True, quality=1)

    return {
        "PNG of 16,000 x 16,000": ("image/png", lambda: _saved(Image.new("L", (16_000, 16_000)), "PNG")),
        "PNG of 30,000 x 5,000 with alpha": (
            "image/png",
            lambda: _saved(Image.new("RGBA", (30_000, 5000)), "PNG"),
        ),
        "WebP of 16,383 x 16,383": ("image/webp", webp),
        "WebP of many frames": ("image/webp", webp_frames),
        "progressive JPEG of 20,000 x 20,000": ("image/jpeg", jpeg),
        "GIF of many frames": ("image/gif", gif),
        "GIF of 65,500 x 2,000": ("image/gif", lambda: _saved(Image.new("P", (65_500, 2000)), "GIF")),
    }
