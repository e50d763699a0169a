"""Drain what nobody owns, now: for a command beside running nodes, or instead of one that will not start again."""

from pathlib import Path

from msgspec import Struct

from ingest.publisher import Publisher
from ingest.spool.breaker import Breaker
from ingest.spool.drain import Drain
from ingest.spool.file import SpoolFile
from ingest.spool.folder import SET_ASIDE, WAITING, files


class Emptied(Struct, frozen=True, kw_only=True):
    """What became of it: callbacks that are with the broker now, those that are left, and files that others drain."""

    drained: int
    left: int
    owned_files: int


async def empty(folder: Path, publisher: Publisher, *, with_set_aside: bool) -> Emptied:
    """Publish all callbacks in files without an owner; `with_set_aside` those set aside, too.

    Each is tried once; what the broker does not confirm stays where it is. Raises OSError if a file cannot be read.
    """
    drain = Drain(folder, publisher, Breaker(publisher))
    owned_files = 0
    try:
        for kind in (WAITING, SET_ASIDE) if with_set_aside else (WAITING,):
            for path in files(folder, kind):
                file = SpoolFile.adopt(path)
                if file is None:
                    owned_files += 1
                else:
                    drain.add(file)
        left = 0
        for waiting in list(drain.backlog):
            left += await drain.run_once(waiting)
        return Emptied(drained=drain.drained, left=left, owned_files=owned_files)
    finally:
        await drain.close()
