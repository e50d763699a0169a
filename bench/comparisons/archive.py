"""The archive: fetching a file with its digests beside curl, the memory of large files, claiming many."""

from functools import partial

from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.archiving import archive_large, bucket_target, claim, curl, fetch, folder_target, ours

NAME = "archive"

OURS = "ours"
CURL = "curl | tee | sha256sum"
TO_FOLDER = "4 files of 2 GB, to a folder"
TO_BUCKET = "4 files of 2 GB, to S3"
CLAIMING = "claiming 10,000 due files"

FETCHING = (
    Contender(name=OURS, measure=partial(fetch, ours)),
    Contender(name=CURL, measure=partial(fetch, partial(curl, after=""))),
    # As ours: what it says is fetched survives the loss of power.
    Contender(name=f"{CURL}, synced", measure=partial(fetch, partial(curl, after="&& sync {part}"))),
)
ONCE = (
    Contender(name=TO_FOLDER, measure=partial(archive_large, folder_target)),
    Contender(name=TO_BUCKET, measure=partial(archive_large, bucket_target)),
    Contender(name=CLAIMING, measure=claim),
)

#: A gigabyte each time.
_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Fetch a file of 1 GB in turn with curl; then archive four of 2 GB, and claim 10,000, once."""
    title = "archiving: 1 GB over loopback to disk with its SHA-256; large files; claims"
    compared = compare(NAME, title, FETCHING, arena, options.at_most(_MOST_ROUNDS))
    compared.contestants += compare(NAME, title, ONCE, arena, Options(rounds=1)).contestants
    return compared
