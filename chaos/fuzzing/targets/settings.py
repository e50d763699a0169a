"""What stands in a request's headers and in the file of the callback keys."""

import re

import msgspec

from chaos.fuzzing.promises import promise
from ingest import KeysError, parse_keys
from ingest.keys import MAX_CHARACTERS
from ingest.request import traceparent

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_PRINTED = 8


def keys(content: bytes) -> None:
    """Use a file of keys whole, or refuse it with a sentence that quotes no key."""
    try:
        found = parse_keys(content)
    except KeysError as error:
        _check_secret(content, str(error))
        return
    promise(found and all(found.values()), "every SdkAppId that is named has keys")
    promise(all(0 <= app < 10**19 for app in found), "an SdkAppId is a decimal number of 19 digits at most")
    lengths = {len(key) for app_keys in found.values() for key in app_keys}
    promise(lengths <= set(range(1, MAX_CHARACTERS + 1)), "a key has 1 to 64 characters")
    expected = {str(app): list(app_keys) for app, app_keys in found.items()}
    promise(msgspec.json.decode(content) == expected, "the keys are those of the file")


def trace(header: bytes) -> None:
    """Pass on a trace that is one: the one that was received, or a new one."""
    # As aiohttp reads a header.
    received = header.decode("utf-8", "surrogateescape")
    travelling = traceparent(received)
    promise(_TRACEPARENT.fullmatch(travelling), "what travels on is a traceparent")
    promise(int(travelling[3:35], 16) and int(travelling[36:52], 16), "neither id of a traceparent is zero")
    is_one = _TRACEPARENT.fullmatch(received) and int(received[3:35], 16) and int(received[36:52], 16)
    promise(not is_one or travelling == received, "a trace that a proxy began is kept")


def _check_secret(content: bytes, sentence: str) -> None:
    """Check that a run of 8 characters of any key is not quoted."""
    sentence = sentence.replace("1400000001", "")  # the example that every sentence gives
    secrets = [secret for secret in re.findall(rb"[A-Za-z0-9]{8,64}", content) if not secret.isdigit()]
    quoted = [secret for secret in secrets if secret[:_PRINTED].decode() in sentence and secret not in _OUR_WORDS]
    promise(not quoted, "an error about keys quotes none")


#: Of our own sentences, so that a file that holds one of them proves nothing.
_OUR_WORDS = frozenset(b"callback SdkAppId 1400000001 decimal characters".split())
