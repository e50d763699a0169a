"""What several processes do to one store at the same moment: `python -m tests.store.process VERB URL SEED OF`.

Says `ready`, waits for a line on standard input, and ends with 0 if all went well.
"""

import asyncio
import sys
from collections.abc import Sequence
from random import Random

from store import KeptEvent, Store, apply_events, migrate, migrating, reserve
from tests.store.classes import random_deliveries, random_groups

#: Recordings that all processes work on.
TASKS = [f"task-{number}" for number in range(8)]

#: What each process reserves, of a name that has a turn every so often.
TURNS = 10
TURNS_EVERY_S = 100.0


def all_deliveries() -> dict[str, list[KeptEvent]]:
    """Return the deliveries of every class, the same in every process."""
    random = Random(20_260_101)
    return {task_id: random_deliveries(random, task_id=task_id, most=20) for task_id in TASKS}


def groups_of(seed: int, *, of: int) -> list[Sequence[KeptEvent]]:
    """Return the part of all deliveries that number `seed` of `of` workers applies, shuffled and split.

    Every delivery is in the parts of two workers.
    """
    random = Random(seed)
    flat = [one for deliveries in all_deliveries().values() for one in deliveries]
    mine = [one for number, one in enumerate(flat) if number % of in {seed, (seed + 1) % of}]
    random.shuffle(mine)
    return [part for group in random_groups(random, mine) for part in random_groups(random, group)]


def _hang(*_: object) -> None:
    """Stop in the middle of a migration: all tables are made, and nothing is committed."""
    sys.stdout.write("in the middle\n")
    sys.stdout.flush()
    sys.stdin.read()


async def run(verb: str, url: str, seed: int, of: int) -> None:
    """Do what the command line asks for."""
    groups = groups_of(seed, of=of)
    async with Store(url) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        if verb == "migrate":
            await migrate(store)
            return
        if verb == "migrate-and-hang":
            migrating.__dict__["insert"] = _hang
            await migrate(store)
            return
        if verb == "reserve":
            for _ in range(TURNS):
                await reserve(store, "turns", every_s=TURNS_EVERY_S, burst=1, at_most_wait_s=1e6)
            return
        for group in groups:
            await apply_events(store, group)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
