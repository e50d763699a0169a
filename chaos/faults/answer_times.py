"""How long a server takes for its answers, seen from beside it: what the network does to them does not count."""

import threading
import time

from chaos.faults.proxied import Observer


class AnswerTimes:
    """Collects, over all connections of a proxy, the seconds from complete request headers to the answer's beginning.

    Requests must not be pipelined. `longest_s` may be read from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._longest_s = 0.0

    def observe(self) -> Observer:
        """Return the observer of one connection."""
        return _Exchange(self)

    @property
    def longest_s(self) -> float:
        """The longest time so far, answers that are still awaited not among them."""
        with self._lock:
            return self._longest_s

    def add(self, seconds: float) -> None:
        """Count one answer."""
        with self._lock:
            self._longest_s = max(self._longest_s, seconds)


class _Exchange:
    """One connection: headers, perhaps a body, an answer, and again."""

    def __init__(self, times: AnswerTimes) -> None:
        self._times = times
        self._headers = b""
        self._complete_at_s: float | None = None

    def got(self, data: bytes) -> None:
        """Take note of a part of a request."""
        if self._complete_at_s is None:
            self._headers += data
            if b"\r\n\r\n" in self._headers:
                self._complete_at_s = time.monotonic()

    def said(self, data: bytes) -> None:
        """Take note of a part of an answer, or of the end of the connection, which is none."""
        if data and self._complete_at_s is not None:
            self._times.add(time.monotonic() - self._complete_at_s)
            self._headers = b""
            self._complete_at_s = None
