"""The process that makes pictures smaller: begun with the first, used for all, ended when it misbehaves.

A process rather than a thread, because its memory can be bounded whatever a codec does, because a crash of a
codec is not ours, and because it can be ended: a thread goes on when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from hansa import NetworkContext

from hansa_matrix.media import image_worker

#: Seconds for one picture, and bytes of a smaller one.
_SHRINK_TIMEOUT_S, _MAX_THUMBNAIL_BYTES = 20.0, 16 * 1024 * 1024


class Unreadable(Exception):
    """The file is not a picture that can be read."""


class TooLarge(Exception):
    """The picture takes more memory or time than one may."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture that was made here."""

    type: str
    data: bytes


class ImageProcess:
    """Runs one job at a time; the caller must ensure that."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The process, where it runs."""
        return self._process.pid if self._process is not None else None

    async def shrink_image(
        self, chunks: AsyncIterator[bytes], kind: str, file_size: int, size: tuple[int, int], *, crop: bool
    ) -> Thumbnail | None:
        """A smaller picture of a file of ``file_size`` bytes; None if it is as small already. Raises
        ``Unreadable``, ``TooLarge``, OSError if the process cannot be begun.
        """
        process = self._process or await self._start_worker()
        job = {"type": kind, "size": file_size, "width": size[0], "height": size[1], "crop": crop}
        try:
            async with asyncio.timeout(_SHRINK_TIMEOUT_S):
                head, data = await self._ask_worker(process, orjson.dumps(job) + b"\n", chunks)
        except (TimeoutError, EOFError, ConnectionError, ValueError) as error:
            self._end_worker(process)
            self._ctx.count("matrix_thumbnailer_ended")
            self._ctx.log.info("a picture ended the thumbnailer: %s", str(error) or type(error).__name__)
            raise TooLarge from error
        except BaseException:
            self._end_worker(process)
            raise
        match head["result"]:
            case "made":
                return Thumbnail(head["type"], data)
            case "small":
                return None
            case "large":
                raise TooLarge
        raise Unreadable

    @staticmethod
    async def _ask_worker(
        process: Process, job: bytes, chunks: AsyncIterator[bytes]
    ) -> tuple[dict[str, Any], bytes]:
        """Sends a job and its file to the process, and returns its answer."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job)
        async for chunk in chunks:
            process.stdin.write(chunk)
            await process.stdin.drain()
        head: dict[str, Any] = orjson.loads(await process.stdout.readline())
        if head["size"] > _MAX_THUMBNAIL_BYTES:
            raise ValueError("the smaller picture is too large")
        return head, await process.stdout.readexactly(head["size"])

    async def _start_worker(self) -> Process:
        program = str(Path(image_worker.__file__))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            program,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # what a decoder says of a file is its sender's text, and would be in no record
            start_new_session=True,
        )
        self._process = process
        self._ctx.spawn(partial(self._end_with_network, process), "thumbnailer")
        return process

    async def _end_with_network(self, process: Process) -> None:
        """Ends the process with the network."""
        try:
            await process.wait()
        finally:
            self._end_worker(process)
            await process.wait()

    def _end_worker(self, process: Process) -> None:
        if self._process is process:
            self._process = None
        if process.returncode is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
