"""Logs: one form for all lines, ours and the libraries', as text for people or as JSON for programs.

Everybody logs by the standard library; what belongs to a request carries its `request_id`, through a context variable.
Nothing that a client chose gets into a line but ids, and names of what failed: no query string, no body, no header.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter

Line = MutableMapping[str, Any]

#: What a line begins with; the rest is in the order in which it was given.
_FIRST: Final = ("time", "level", "logger", "message")
#: So that nothing in a value can look like a line of its own, or paint on a terminal.
_ESCAPED: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}

#: What uvicorn's sans-io protocol says of each handshake that got an HTTP answer: it forgets that it sent one. And what
#: it says of an answer that is broken off, on purpose: whoever does so says why, and the connection is closed.
_MEANINGLESS: Final = frozenset(
    {
        "ASGI callable returned without completing handshake.",
        "ASGI callable returned without completing response.",
    }
)


def configure_logging(level: str, *, as_json: bool) -> None:
    """Set up the logging of this process, on standard error. `level` is `debug`, `info`, `warning` or `error`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    # It warns of every malformed body, which the client is told of already.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    tame_uvicorn()


def tame_uvicorn() -> None:
    """Keep secrets, and what is not true, out of uvicorn's lines, whoever has set up logging. Safe to repeat."""
    logging.getLogger("uvicorn.error").addFilter(_tamed)


class HeldBack(logging.Filter):
    """What uvicorn says of a start until it is known that the start is not refused: then one line alone says why."""

    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger("uvicorn.error")
        self._records: list[logging.LogRecord] = []
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        self._records.append(record)
        return False

    def tell(self) -> None:
        """Log what has been held back, each line with its own time, and hold nothing back any more."""
        self.drop()
        for record in self._records:
            self._logger.handle(record)
        self._records.clear()

    def drop(self) -> None:
        """Hold nothing back any more. Safe to call twice."""
        self._logger.removeFilter(self)


def formatter(*, as_json: bool) -> logging.Formatter:
    """How records become lines."""
    common: list[Any] = [structlog.contextvars.merge_contextvars, ExtraAdder(), _origin]
    last: list[Any] = [ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, _in_order]
    last.append(structlog.processors.JSONRenderer(default=str) if as_json else _as_text)
    return ProcessorFormatter(foreign_pre_chain=common, processors=last)


def _origin(_: Any, __: str, line: Line) -> Line:
    record: logging.LogRecord = line["_record"]
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    line["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line["level"] = record.levelname.lower()
    line["logger"] = record.name
    return line


def _in_order(_: Any, __: str, line: Line) -> Line:
    line["message"] = line.pop("event")
    # uvicorn's second version of its text, with colours.
    line.pop("color_message", None)
    return {name: line[name] for name in _FIRST} | {name: line[name] for name in line if name not in _FIRST}


def _as_text(_: Any, __: str, line: Line) -> str:
    content = dict(line)
    time, level, name, message = (str(content.pop(first)) for first in _FIRST)
    exception = content.pop("exception", None)
    more = "".join(f" {key}={_word(value)}" for key, value in content.items())
    text = f"{time} {level.upper():7} {name}: {message.translate(_ESCAPED)}{more}"
    return text if exception is None else f"{text}\n{exception}"


def _word(value: object) -> str:
    text = str(value).translate(_ESCAPED)
    return f'"{text}"' if " " in text or not text else text


def _tamed(record: logging.LogRecord) -> bool:
    """Take the query string, where a token may have been put by mistake, out of uvicorn's line of a WebSocket.

    False for what means nothing.
    """
    if "WebSocket" in str(record.msg) and isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return record.msg not in _MEANINGLESS
