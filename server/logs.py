"""Structured logs on stderr: for people (`console`) or for machines (`json`)."""

import sys
import time

import structlog

from server.calls import Call

# Of the access log: enough to see what goes on, few enough to cost nothing under load.
ACCESS_LINES_PER_SECOND = 100

log = structlog.get_logger()


def configure(log_format: str) -> None:
    """Sets up structlog for the whole process; `log_format` is "console" or "json"."""
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        # One write for a line and its end, so that those of several processes never mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class AccessLog:
    """One line per call, never its pixels; under load a sample, which says what it left out."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._skipped = 0

    def __call__(self, call: Call) -> None:
        """Logs a call that has ended. Races between threads may cost a line, nothing else."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= ACCESS_LINES_PER_SECOND:
            self._skipped += 1
            return
        self._lines += 1
        skipped, self._skipped = self._skipped, 0
        sample = {"skipped_lines": skipped} if skipped else {}
        log.info(
            "call",
            method=call.method,
            code=call.code,
            request_id=call.request_id,
            model=call.model,
            version=call.version,
            images=call.images,
            queue_ms=round(call.queue_seconds * 1e3, 3),
            run_ms=round(call.run_seconds * 1e3, 3),
            total_ms=round(call.seconds * 1e3, 3),
            **sample,
        )
