"""What reads HTTP here has to be a version without known holes."""

import re

import aiohttp
from aiohttp import http_parser

#: Until then one request could keep a core busy, or be read as two:
#: https://github.com/aio-libs/aiohttp/blob/master/CHANGES.rst
OLDEST_AIOHTTP = (3, 14, 5)


class UnsafeHTTPError(RuntimeError):
    """Raised instead of starting; its text says what to do."""


def require_safe_http() -> None:
    """Raise `UnsafeHTTPError` unless aiohttp is new enough, and reads HTTP with its parser in C.

    Its fallback in pure Python is slow, and had more holes.
    """
    version = tuple(int(part) for part in re.findall(r"[0-9]+", aiohttp.__version__)[:3])
    if version < OLDEST_AIOHTTP:
        oldest = ".".join(map(str, OLDEST_AIOHTTP))
        raise UnsafeHTTPError(f"aiohttp {aiohttp.__version__} has known holes: install {oldest} or newer")
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise UnsafeHTTPError(
            "aiohttp runs without its C parser: unset AIOHTTP_NO_EXTENSIONS, or install a binary wheel of aiohttp"
        )
