"""Fetches one file as the archive does, and prints how many seconds that took: `URL PART`."""

import asyncio
import sys
import time
from pathlib import Path

from archive import AddressRules, Fetcher, FetchLimits, FileHeaders, Wanted, parse_hosts, parse_networks


async def _nothing(headers: FileHeaders) -> None:
    del headers


async def main(url: str, part: Path) -> None:
    """Fetch it; on return the file is whole, digested and on disk."""
    rules = AddressRules(hosts=parse_hosts("127.0.0.1"), networks=parse_networks("127.0.0.0/8"))
    async with Fetcher(rules, FetchLimits()) as fetcher:
        began_s = time.perf_counter()
        await fetcher.fetch(
            Wanted(url=url, part=part, is_vendors_address=True), on_progress=lambda _: None, on_headers=_nothing
        )
        print(time.perf_counter() - began_s)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
