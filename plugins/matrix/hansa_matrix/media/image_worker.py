"""Makes pictures smaller, as a process of its own that may take little memory and that can be ended.

Run as a program, with nothing of Hansa imported, and with a limit on its memory. It reads jobs, each a line
of JSON and then the bytes of a file, and answers each in the same way. The header of a picture tells its
unpacked size first; a file that lies about it, or makes a codec take more, meets the limit of the process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF", "image/webp": "WEBP"}
_MIB = 1024 * 1024
#: Memory that the process may take on top of what it begins with (27 MiB of address space on Linux), and of
#: that what a file and a picture unpacked take.
MAX_ADDED_MEMORY = 100 * _MIB
MAX_UNPACKED_BYTES = 68 * _MIB
#: Pixels that are unpacked at all, and of a JPEG that is unpacked at a smaller scale.
_MAX_PIXELS, _MAX_SCALED_PIXELS = 40_000_000, 120_000_000
#: Pixels that a picture has when it is resampled.
_RESAMPLED_PIXELS = 4_000_000
_STRIP_PIXELS = 250_000
#: Bytes of a pixel in memory, by mode; four of any other.
_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
#: A WebP file is unpacked into canvases, and copied out of them.
_WEBP_PIXEL = 16
#: A progressive JPEG is held whole as coefficients of two bytes.
_COEFFICIENT = 2
#: Orientations of EXIF that make width of height.
_ROTATED_ORIENTATIONS = frozenset({5, 6, 7, 8})


class ImageTooLarge(Exception):
    """A picture would take more memory than there is."""


def webp_size(data: bytes) -> tuple[int, int]:
    """The canvas of a WebP file by its first chunk: Pillow allocates it as soon as it opens one. Raises
    ValueError for what is none.
    """
    kind, head = data[12:16], data[20:30]
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(head) < 10:
        raise ValueError("this is not a WebP file")
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    raise ValueError("this is not a WebP file")


def _check_memory(pixels: int, each: int, packed: int, most: int = _MAX_PIXELS) -> None:
    if pixels > most or pixels * each + packed > MAX_UNPACKED_BYTES:
        raise ImageTooLarge


def shrink_image(data: bytes, kind: str, size: tuple[int, int], *, crop: bool) -> tuple[str, bytes] | None:
    """The media type and the bytes of a smaller picture; None if it is as small already. Raises
    ``ImageTooLarge``, MemoryError, and what Pillow raises for what it cannot read.
    """
    if kind == "image/webp":
        width, height = webp_size(data)
        _check_memory(width * height, _WEBP_PIXEL, len(data))
    with Image.open(io.BytesIO(data), formats=[FORMATS[kind]]) as picture:
        if picture.width <= size[0] and picture.height <= size[1]:
            return None
        if kind == "image/jpeg":
            coefficients = len(picture.getbands()) * _COEFFICIENT if picture.info.get("progressive") else 0
            _check_memory(picture.width * picture.height, coefficients, len(data), _MAX_SCALED_PIXELS)
            picture.draft(None, size)
        if kind != "image/webp":
            _check_memory(picture.width * picture.height, _PIXEL.get(picture.mode, 4), len(data))
        width, height = picture.size
        if picture.getexif().get(ExifTags.Base.Orientation, 1) in _ROTATED_ORIENTATIONS:
            width, height = height, width
        between = _reduce_by_strips(picture, max(size))
    upright = ImageOps.exif_transpose(between)
    plain = _resize_image(upright, (width, height), size, crop=crop)
    out = io.BytesIO()
    if plain.mode == "RGBA":
        plain.save(out, "PNG")
        return "image/png", out.getvalue()
    plain.save(out, "JPEG", quality=80)
    return "image/jpeg", out.getvalue()


def _resize_image(
    picture: Image.Image, original: tuple[int, int], size: tuple[int, int], *, crop: bool
) -> Image.Image:
    """To a size, by the proportions of the original, of which ``picture`` may have others by now."""
    width, height = original
    if not crop:
        scale = min(size[0] / width, size[1] / height, 1)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        return picture.resize(shown, Image.Resampling.LANCZOS)
    across = min(1, height * size[0] / size[1] / width) * picture.width
    down = min(1, width * size[1] / size[0] / height) * picture.height
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    return picture.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + across, top + down))


def _reduce_by_strips(picture: Image.Image, side: int) -> Image.Image:
    """The picture in RGB or RGBA, of few pixels, made strip by strip: a copy would double its memory."""
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    width, height = picture.size
    across, down = 1, 1
    if width * height > _RESAMPLED_PIXELS:
        across, down = max(1, width // side), max(1, height // side)
    while (width // across) * (height // down) > _RESAMPLED_PIXELS:
        if width // across > height // down:
            across += 1
        else:
            down += 1
    whole = Image.new(mode, (-(-width // across), -(-height // down)))
    rows = max(1, _STRIP_PIXELS // width // down) * down
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(height, top + rows))).convert(mode)
        whole.paste(strip.reduce((across, down)) if across * down > 1 else strip, (0, top // down))
    if "exif" in picture.info:
        whole.info["exif"] = picture.info["exif"]
    return whole


def answer_job(job: dict[str, object], data: bytes) -> tuple[dict[str, object], bytes]:
    """Returns the answer to one job."""
    size = int(str(job["width"])), int(str(job["height"]))
    try:
        made = shrink_image(data, str(job["type"]), size, crop=bool(job["crop"]))
    except (ImageTooLarge, MemoryError, Image.DecompressionBombError):
        return {"result": "large", "size": 0}, b""
    except Exception:  # noqa: BLE001  # a codec may raise anything about a hostile file
        return {"result": "unreadable", "size": 0}, b""
    if made is None:
        return {"result": "small", "size": 0}, b""
    return {"result": "made", "type": made[0], "size": len(made[1])}, made[1]


def serve_jobs(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Answer jobs until there are no more."""
    while line := jobs.readline(4096):
        job = json.loads(line)
        head, made = answer_job(job, jobs.read(job["size"]))
        answers.write(json.dumps(head).encode() + b"\n" + made)
        answers.flush()


def _address_space() -> int:
    """The address space of the process by now, in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 28 * _MIB
    return pages * resource.getpagesize()


def main() -> None:
    """Take the limits of the process, then serve."""
    Image.preinit()
    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # counted here, by format
    limits = (
        (resource.RLIMIT_AS, _address_space() + MAX_ADDED_MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    )
    for what, most in limits:
        with contextlib.suppress(OSError, ValueError):  # a system that has no such limit
            resource.setrlimit(what, (most, most))
    os.nice(5)
    serve_jobs(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
