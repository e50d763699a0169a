"""`tiw changes list`: who changed what in the console."""

import argparse
from typing import Final

from store import Change, check_schema, list_changes
from tiw.opening import open_store
from tiw.output import iso_of_us, print_json, print_table, show_iso
from tiw.settings import Settings

#: So many are read at a time.
_PAGE: Final = 1000


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print the changes, the latest first."""
    found: list[Change] = []
    async with open_store(settings) as store:
        await check_schema(store)
        after = None
        while not args.limit or len(found) < args.limit:
            page = await list_changes(store, after=after, limit=_PAGE)
            found += page.rows
            after = page.next
            if after is None:
                break
    changes = found[: args.limit or None]
    if args.json:
        print_json(changes)
        return 0
    print_table(
        ["at UTC", "who", "from", "action", "of", "result"],
        [
            (
                show_iso(iso_of_us(change.at_us)),
                change.who,
                change.address,
                change.action,
                ", ".join(f"{name} {value}" for name, value in change.detail.items() if value not in (None, "", [])),
                change.result,
            )
            for change in changes
        ],
        empty="Nobody changed anything in the console.",
        spare=["from", "who"],
        wide=args.wide,
    )
    return 0
