"""The one way into the log: one record is one line, and a traceback is marked as one, whatever peers say."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TextIO

from hansa.model.printable import MAX_LOGGED, printable

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Lines of a traceback, the last ones, and what each begins with: no line of a record begins like this.
MAX_TRACEBACK, MARK = 100, "  | "


class Lines(logging.Formatter):
    """Formats records; message, arguments, names and tracebacks are printable and bounded."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``. The traceback text of another handler is not used again."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [printable(self.formatMessage(record), MAX_LOGGED)]
        if record.exc_info:
            lines.append(_marked(self.formatException(record.exc_info)))
        if record.stack_info:
            lines.append(_marked(record.stack_info))
        return "\n".join(lines)


def _marked(text: str) -> str:
    lines = text.split("\n")
    cut = len(lines) - MAX_TRACEBACK
    kept = [f"({cut} lines more)", *lines[-MAX_TRACEBACK:]] if cut > 0 else lines
    return "\n".join(MARK + printable(line, MAX_LOGGED) for line in kept)


def log_to(stream: TextIO, level: int) -> None:
    """Let the whole process log to a stream. A record that cannot be formatted is left out, not printed as it
    is.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
    sys.excepthook = _log_crash
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _not_raised


def _log_crash(kind: type[BaseException], error: BaseException, trace: object) -> None:
    logging.getLogger("hansa").critical("crashed", exc_info=(kind, error, trace))  # type: ignore[arg-type]


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else "?"
    found = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("hansa").critical("thread %s crashed", name, exc_info=found)  # type: ignore[arg-type]


def _not_raised(args: sys.UnraisableHookArgs) -> None:
    """Logs an error that could not be raised to a caller, such as one in a finaliser."""
    found = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("hansa").error("%s", args.err_msg or "not raised", exc_info=found)  # type: ignore[arg-type]
