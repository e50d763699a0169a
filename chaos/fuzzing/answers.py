"""The answers in what a server has sent, in their order."""

import re

from msgspec import Struct

from chaos.fuzzing.promises import promise

_STATUS_LINE = re.compile(rb"HTTP/(?:0\.9|1\.[01]|2\.0) ([1-5]\d\d) [^\r\n]*")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([^\r\n]*)")
_CONTINUE = 100


class Answer(Struct, frozen=True, kw_only=True):
    """An answer, whole. The names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_answers(sent: bytes, *, without_body: bool = False) -> list[Answer]:
    """Return the answers in `sent` but for interim ones, `without_body` if they are to a HEAD.

    Raises `BrokenPromiseError` if they are not whole, or no HTTP.
    """
    answers: list[Answer] = []
    while sent:
        head, ending, rest = sent.partition(b"\r\n\r\n")
        promise(ending, "the headers of an answer end")
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        fields = [_HEADER.fullmatch(line) for line in lines]
        promise(status_line and all(fields), "an answer is HTTP")
        headers = {field[1].decode().lower(): field[2].decode() for field in fields if field}
        status = int(status_line[1]) if status_line else 0
        if status == _CONTINUE:
            sent = rest
            continue
        promise("content-length" in headers, "an answer says how long it is")
        size = 0 if without_body else int(headers["content-length"])
        promise(len(rest) >= size, "an answer is whole")
        answers.append(Answer(status=status, headers=headers, body=rest[:size]))
        sent = rest[size:]
    return answers
