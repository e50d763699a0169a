"""The last belt before a text leaves the process: no secret, no control character, no flood.

The first rule is not to log secrets at all. This one catches what slips through in the messages of libraries.
"""

import re

#: Longer values are cut, and say so.
MAX_CHARACTERS = 500

#: What is looked at of a longer text before it is cut: enough to find a secret that straddles the cut.
_MAX_EXAMINED = 8 * MAX_CHARACTERS

_URL_CREDENTIALS = re.compile(r"(?<=://)[^\s/]+@")
_NAMED_SECRET = re.compile(
    r"""(?<![A-Za-z0-9])(Sign|CallbackKey|TIW_CALLBACK_KEYS)  # the name, not the end of another word
        (\\*["']?\s{0,8}[:=]\s{0,8})                           # how it is given: JSON, escaped JSON, a query
        (?:\\*"[^"]*+"?|\\*'[^']*+'?|[^\s,;&}\])]++)           # its value""",
    re.VERBOSE | re.IGNORECASE,
)


def presentable(text: str) -> str:
    """Return `text` as it may be shown in a log: secrets as `***`, on one line, at most about 500 characters.

    Redacted are credentials in URLs and the values of Sign and CallbackKey, as JSON or as `name=value`. Characters
    that a terminal or an editor would obey instead of show (control characters, escape sequences, bidirectional
    overrides, unpaired surrogates) are written as Python escapes.
    """
    if len(text) <= MAX_CHARACTERS and ":" not in text and "=" not in text and text.isprintable():
        # Nothing in it can be a secret's name and value: a glance instead of a search, for each value of each line.
        return text
    cut = text[:_MAX_EXAMINED]
    if "://" in cut:
        cut = _URL_CREDENTIALS.sub("***@", cut)
    cut = _NAMED_SECRET.sub(r"\1\2***", cut)
    omitted = max(len(text) - _MAX_EXAMINED, 0) + max(len(cut) - MAX_CHARACTERS, 0)
    cut = cut[:MAX_CHARACTERS]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return f"{cut}... ({omitted} more)" if omitted else cut
