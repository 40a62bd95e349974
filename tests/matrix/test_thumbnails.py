"""Smaller pictures: what they cost is told before they are unpacked, and bounded whatever a file says."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hansa import Busy, FairSlots, RemoteProtocolError, SlotShares
from hansa.testing import until
from hansa_matrix.media import image_process, image_worker
from hansa_matrix.media.repository import MediaItem
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer
from matrix.test_media import kept
from PIL import Image

#: What a picture may take: the issue's bound, in KiB as Linux tells it.
MOST_KIB = 128 * 1024
FAILED = ("matrix_thumbnails_failed", (("plugin", "matrix"),))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def noise(side: int, mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((side, side), 80).convert(mode)


#: First column and row, and the steps, of each pass of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(width: int, height: int, *, interlaced: bool = False) -> bytes:
    """A file of one colour whose rows are never made here."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, int(interlaced))
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    packing, packed = zlib.compressobj(9), b""
    for left, top, across, down in passes:
        row = b"\0" * (1 + 3 * -(-(width - left) // across))
        packed += b"".join(packing.compress(row) for _ in range(top, height, down))
    packed += packing.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif(side: int, frames: int) -> bytes:
    shades = [Image.new("P", (side, side), shade) for shade in range(frames)]
    return saved(shades[0], "GIF", save_all=True, append_images=shades[1:])


def webp(canvas: int, frames: int) -> bytes:
    """An animation on a canvas larger than any of its frames."""
    small = [Image.new("RGB", (64, 64), (60 * shade, 0, 0)) for shade in range(frames)]
    data = bytearray(saved(small[0], "WEBP", save_all=True, append_images=small[1:]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (canvas - 1).to_bytes(3, "little") * 2
    return bytes(data)


def huge_jpeg(side: int, **options: Any) -> bytes:
    """A small file that says it is large."""
    data = bytearray(saved(Image.new("RGB", (256, 256), "red"), "JPEG", **options))
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at >= 0:
            data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


#: Name -> (media type, how it is made, what is answered: the size of the smaller picture, or an error).
BOMBS: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "png 16k x 16k": ("image/png", lambda: png(16_000, 16_000), 413),
    "png interlaced 5k x 5k": ("image/png", lambda: png(5000, 5000, interlaced=True), 413),
    "png interlaced 3500 x 3500": ("image/png", lambda: png(3500, 3500, interlaced=True), 200),
    "png 1 x 16M": ("image/png", lambda: saved(Image.new("1", (1, 16_000_000)), "PNG"), 413),
    "png of 64M pixels in one bit": ("image/png", lambda: saved(Image.new("1", (8000, 8000)), "PNG"), 413),
    "gif 16k x 16k": ("image/gif", lambda: gif(16_000, 1), 413),
    "gif 6k x 6k in 6 frames": ("image/gif", lambda: gif(6000, 6), 200),
    "webp 16k x 16k": ("image/webp", lambda: webp(16_000, 4), 413),
    "webp lossless 8k x 8k": (
        "image/webp", lambda: saved(Image.new("RGBA", (8000, 8000)), "WEBP", lossless=True, method=0), 413,
    ),
    "webp lossless 2100 x 2100": ("image/webp", lambda: saved(noise(2100, "RGBA"), "WEBP", lossless=True, quality=0, method=0), 413),
    "webp 1700 x 1700": ("image/webp", lambda: saved(noise(1700), "WEBP", quality=50, method=0), 200),
    "jpeg progressive 20k x 20k": ("image/jpeg", lambda: huge_jpeg(20_000, progressive=True), 413),
    "jpeg progressive 3k x 3k": ("image/jpeg", lambda: saved(noise(3000), "JPEG", progressive=True), 200),
    "jpeg 20k x 20k": ("image/jpeg", lambda: huge_jpeg(20_000), 413),
    "jpeg 9k x 9k": ("image/jpeg", lambda: saved(Image.new("RGB", (9000, 9000), "red"), "JPEG"), 200),
}  # fmt: skip


def peak(pid: int) -> int:
    """The most memory that a process has had (KiB)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def thumbnails(house: ServerWithPeer) -> Any:
    return house.matrix.thumbnails


async def made(house: ServerWithPeer, item: MediaItem, side: int = 1600, who: str = "@a:x") -> int:
    """The status of an answer."""
    try:
        small = await thumbnails(house).get_thumbnail(item, (side, side), crop=False, who=who)
    except RemoteProtocolError as error:
        return error.hint
    with Image.open(io.BytesIO(small.data)) as shown:
        assert max(shown.size) <= side
    return 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("bomb", BOMBS)
async def test_no_picture_takes_more_than_it_may(tmp_path, bomb):
    kind, make, status = BOMBS[bomb]
    async with server_with_peer(tmp_path) as house:
        item = await kept(house, make(), kind)
        before = peak(os.getpid())
        assert await made(house, item) == status
        pid = house.matrix.image_decoder.pid
        took = peak(pid) + peak(os.getpid()) - before
        assert 0 < took < MOST_KIB
        # The process goes on, and makes the next one.
        assert await made(house, await kept(house, png(100, 100), "image/png"), side=32) == 200
        assert house.matrix.image_decoder.pid == pid


async def test_a_picture_that_fails_is_tried_once_however_many_look_at_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for data, status in ((png(9000, 9000), 413), (b"no picture", 400)):
            item = await kept(house, data, "image/png")
            before = house.app.counters.get(FAILED, 0)
            answers = await asyncio.gather(*(made(house, item, 96, f"@{n}:x") for n in range(20)))
            assert set(answers) == {status}
            assert await made(house, item, 800) == status
            assert house.app.counters[FAILED] == before + 1


async def test_a_process_that_dies_or_hangs_is_begun_anew(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        item, other = await kept(house, png(900, 900)), await kept(house, png(901, 900))
        assert await made(house, item, 32) == 200
        first = house.matrix.image_decoder.pid
        os.kill(first, signal.SIGSTOP)
        monkeypatch.setattr(image_process, "_SHRINK_TIMEOUT_S", 0.01)
        assert await made(house, other, 32) == 413
        monkeypatch.undo()
        other = await kept(house, png(902, 900))
        assert await made(house, other, 32) == 200
        second = house.matrix.image_decoder.pid
        assert second != first
        # Nobody waits any more: the work is stopped, not finished in vain.
        os.kill(second, signal.SIGSTOP)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(made(house, item, 96))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked.cancel()
        assert await made(house, item, 96) == 200
        assert house.matrix.image_decoder.pid != second


async def test_the_process_ends_with_the_network(tmp_path):
    async with server_with_peer(tmp_path) as house:
        assert await made(house, await kept(house, png(900, 900)), 32) == 200
        process = house.matrix.image_decoder._process
    await process.wait()
    assert process.returncode == -signal.SIGKILL


def test_the_canvas_of_a_webp_file_is_known_before_it_is_opened():
    for size in ((3, 5), (300, 200)):
        for options in ({"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0x"}):
            assert image_worker.webp_size(saved(Image.new("RGB", size), "WEBP", **options)) == size
    for data in (b"", b"RIFF", b"RIFF1234WEBPVP8 ", b"RIFF1234WEBPABCD" + bytes(20)):
        with pytest.raises(ValueError, match="not a WebP"):
            image_worker.webp_size(data)


def test_a_picture_is_cut_in_its_middle():
    for width, height in ((6000, 2000), (600, 200)):
        wide = Image.new("RGB", (width, height), "red")
        wide.paste((0, 0, 250), (width // 3, 0, 2 * width // 3, height))
        _, data = image_worker.shrink_image(saved(wide, "PNG"), "image/png", (96, 96), crop=True) or ("", b"")
        with Image.open(io.BytesIO(data)) as small:
            assert small.size == (96, 96)
            for x in (4, 48, 92):
                red, _, blue = small.convert("RGB").getpixel((x, 48))
                assert (red < 30, blue > 220) == (True, True)


def test_a_turned_picture_stands_upright_and_colours_stay():
    turned = Image.new("RGB", (3000, 2000), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    for size, shown in (((320, 320), (213, 320)), ((1600, 1600), (1067, 1600))):
        kind, data = image_worker.shrink_image(
            saved(turned, "JPEG", exif=exif), "image/jpeg", size, crop=False
        ) or (
            "",
            b"",
        )
        with Image.open(io.BytesIO(data)) as small:
            assert (kind, small.size) == ("image/jpeg", shown)
            red, green, blue = small.convert("RGB").getpixel((100, 100))
            assert red > 240 and green < 15 and blue < 15
    clear = Image.new("RGBA", (3000, 3000), (0, 199, 0, 128))
    kind, data = image_worker.shrink_image(saved(clear, "PNG"), "image/png", (96, 96), crop=True) or ("", b"")
    with Image.open(io.BytesIO(data)) as small:
        assert (kind, small.size, small.getpixel((50, 50))) == ("image/png", (96, 96), (0, 199, 0, 128))


async def test_who_asks_for_much_waits_behind_themselves():
    shares, gate = FairSlots(SlotShares(in_all=1, each={"for": 1}, waiting=3)), asyncio.Event()
    order: list[tuple[str, int]] = []

    async def work(who: str, number: int) -> None:
        async with shares.hold_slot(("for", who)):
            await gate.wait()
            order.append((who, number))

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work("much", number))
        group.create_task(work("little", 0))
        await until(lambda: shares.waiting >= 4)
        gate.set()
    assert order.index(("little", 0)) < order.index(("much", 2))
    assert (shares.taken, shares.waiting) == (0, 0)


async def test_those_who_wait_are_bounded_and_may_go():
    shares, gate = FairSlots(SlotShares(in_all=2, each={"for": 1}, waiting=2)), asyncio.Event()

    async def work(who: str) -> None:
        async with shares.hold_slot(("for", who)):
            await gate.wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work("much")) for _ in range(3)]
        await until(lambda: shares.waiting >= 2)
        with pytest.raises(Busy):
            await work("much")
        tasks[1].cancel()
        group.create_task(work("other"))
        while shares.taken < 2:
            await asyncio.sleep(0)  # the other one has a slot, although one waits
        assert shares.waiting == 1
        gate.set()
    assert (shares.taken, shares.waiting) == (0, 0)


async def test_a_peer_s_thumbnails_wait_behind_a_person_s(tmp_path):
    async with server_with_peer(tmp_path) as house:
        item, seen = await kept(house, png(900, 900)), []
        plain = thumbnails(house).get_thumbnail

        async def of(item: MediaItem, size: tuple[int, int], *, crop: bool, who: str) -> Any:
            seen.append(who)
            return await plain(item, size, crop=crop, who=who)

        thumbnails(house).get_thumbnail = of
        target = f"/_matrix/federation/v1/media/thumbnail/{item.mxc.media_id}?width=9&height=9"
        assert (await house.whole("GET", target)).status == 200
        assert seen == [THEIRS]
