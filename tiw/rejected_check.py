"""What `tiw doctor` says of refused callbacks: whether some of them would be let in now."""

import time
from collections import Counter
from collections.abc import Iterator

from ingest import KeptRejected, KeysError, RefusedError, RejectedFileError, read_rejected, readmit
from tiw.checks import Check
from tiw.ingest_config import rejected_folder
from tiw.keys import present_keys
from tiw.settings import Settings


def check_rejected(settings: Settings) -> Check:
    """Find refused callbacks that the keys of now would let in; others are told, and no problem."""
    try:
        kept = read_rejected(rejected_folder(settings), now_us=time.time_ns() // 1000)
        authentic = sum(1 for _ in _authentic(settings, kept))
    except RejectedFileError as error:
        return Check(check="refused callbacks", ok=False, detail=str(error), remedy="see there")
    except KeysError:
        # `check_keys` says what is wrong with them.
        authentic = 0
    if authentic:
        detail = f"{authentic} of the {len(kept)} that are kept would be let in with the keys of now"
        return Check(check="refused callbacks", ok=False, detail=detail, remedy="run `tiw rejected reverify`")
    reasons = Counter(one.rejected.reason for one in kept)
    detail = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none in the last 24 hours"
    remedy = "if some are yours (`tiw rejected list`), mend the keys, then run `tiw rejected reverify`" if kept else ""
    return Check(check="refused callbacks", ok=True, detail=detail, remedy=remedy)


def _authentic(settings: Settings, kept: list[KeptRejected]) -> Iterator[KeptRejected]:
    keys = present_keys(settings)
    for one in kept:
        try:
            readmit(one.rejected, keys=keys, allow_unsigned=settings.allow_unsigned)
        except RefusedError:
            continue
        yield one
