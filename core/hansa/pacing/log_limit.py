"""Log lines that a stranger can cause: one per source and minute, and how many were left out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

_EVERY = 60.0
#: Sources that are remembered; beyond, all others count as one.
_SOURCES = 1000


@dataclass(slots=True)
class _Source:
    again: float
    left_out: int = 0


class LogLimit:
    """Writes to one logger, at most once a minute for each source of lines."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._sources: dict[str, _Source] = {}

    def info(self, source: str, text: str, *values: object) -> None:
        """One line at INFO."""
        self._write_line(logging.INFO, source, text, *values)

    def warning(self, source: str, text: str, *values: object) -> None:
        """One line at WARNING."""
        self._write_line(logging.WARNING, source, text, *values)

    def exception(self, error: BaseException, text: str, *values: object) -> None:
        """One line at ERROR with the traceback. Its source is the place in the code that raised: who finds
        a bug has it told once, and the next bug as well.
        """
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        place = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else ""
        self._write_line(logging.ERROR, f"{type(error).__name__} {place}", text, *values, error=error)

    def _write_line(
        self, level: int, source: str, text: str, *values: object, error: BaseException | None = None
    ) -> None:
        now = asyncio.get_running_loop().time()
        known = self._sources.get(source)
        if known is None:
            known = self._add_source(source, now)
        if known.again > now:
            known.left_out += 1
            return
        more = f" ({known.left_out} more of the like)" if known.left_out else ""
        known.again, known.left_out = now + _EVERY, 0
        self._log.log(level, text + more, *values, exc_info=error)

    def _add_source(self, source: str, now: float) -> _Source:
        if len(self._sources) >= _SOURCES:
            self._sources = {name: one for name, one in self._sources.items() if one.again > now}
        if len(self._sources) >= _SOURCES:
            source = ""
        return self._sources.setdefault(source, _Source(again=0.0))
