"""One world: its parts are put together, its plan happens, and what became of it is judged."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from broker import BUILT_IN_CONSUMERS
from chaos.checking.checker import judge
from chaos.checking.evidence import Judgement, Terms
from chaos.evidence import Outcome, Waiting
from chaos.reading import read_store
from chaos.simulation.broker import Broker
from chaos.simulation.consumers import CANNOT_BE_HANDLED, Handlers
from chaos.simulation.database import Database, copy_template
from chaos.simulation.disk import Disk
from chaos.simulation.evidence import Notes, Story, silence
from chaos.simulation.faults import Faults, replay_dead_letters
from chaos.simulation.network import Network
from chaos.simulation.plan import Bug, Plan
from chaos.simulation.processes import PROCESS, Process
from chaos.simulation.programs import Ingest, Member, NoStallWatch, Program, UnsyncedSpool, Work
from chaos.simulation.vendor import FORGED_KEY, KEY, SDK_APP_ID, IngestAddress, Vendor
from chaos.simulation.virtual_time import Clock, StuckError, VirtualLoop, VirtualThreads
from ingest import Spool, waiting_callbacks
from schemas import UNRECOGNIZED
from workers import BUILT_IN, Worker

#: A world in which all faults are over comes to rest within this: the whole ladder takes 2 h 13 min, twice if replayed.
REST_WITHIN_S = 6 * 3600.0
_POLL_S = 5.0

_UNWINDING_ROUNDS = 200

T = TypeVar("T")


class World:
    """The parts of a world. Everything that happens in it happens in an `active` block.

    `folder` is its own and empty; `template` an empty database.
    """

    def __init__(self, plan: Plan, folder: Path, template: Path, bugs: frozenset[Bug] = frozenset()) -> None:
        self.plan = plan
        self._bugs = bugs
        self.clock = clock = Clock()
        self.loop = loop = VirtualLoop(clock)
        self.loop.set_exception_handler(self._on_loop_error)
        self.ended_at_s = clock.now_s
        self.story = Story(clock)
        self.notes = Notes(clock, self.story)
        self.handlers = Handlers(plan.seed, plan.manners, self.notes)
        self._custom = self.handlers.consumers()
        self.network = Network(Random(f"network {plan.seed}"), plan.weather)
        queues = (*BUILT_IN_CONSUMERS, *(consumer.queues for consumer in self._custom))
        self.broker = Broker(loop, self.network, self.story, queues, bugs)
        self.database = Database(folder / "store.db", clock, self.network, self.story, bugs)
        copy_template(template, self.database.path)
        self.keys = folder / "keys.json"
        self.set_keys(KEY, *([FORGED_KEY] if Bug.FORGED_ACCEPTED in bugs else []))
        self.disk = Disk(clock, self.story, Random(f"disk {plan.seed}"))
        self._folder = folder
        self._tokens = Random(f"tokens {plan.seed}")
        self.ingest_address = IngestAddress(loop, self.network, self.notes)
        self._rng = Random(f"members {plan.seed}")
        self._is_over = False
        self._secrets = Random(f"secrets {plan.seed}")
        self.ingests: list[Member] = []
        self.workers: list[Member] = []
        self._others: list[Process] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let this world's time be the time while the block runs."""
        random_state = random.getstate()
        random.seed(self.plan.seed)
        try:
            with self.clock.installed(), silence(self.notes):
                yield
        finally:
            random.setstate(random_state)

    def begin(self) -> None:
        """Start all programs."""
        self._populate()

    def set_keys(self, *keys: str) -> None:
        """Replace the file of callback keys, which ingest nodes look at every second."""
        draft = self.keys.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode({str(SDK_APP_ID): keys}))
        draft.replace(self.keys)

    def run_until(self, work: Coroutine[Any, Any, T]) -> T:
        """Let things happen until `work` is done, which belongs to no process; return what it returns."""
        task = self.loop.create_task(work)
        self.loop.run_until_complete(task)
        return task.result()  # type: ignore[no-any-return]  # what the coroutine returns

    def run(self) -> list[str]:
        """Let everything happen; return the violations."""
        try:
            return self.run_until(self._happen())
        except StuckError as error:
            self.ended_at_s = self.clock.now_s
            return [f"stuck: {error}", *self.notes.errors]

    def close(self) -> None:
        """Put away what the dead left behind, now that nothing counts any more."""
        self._is_over = True
        for process in self._dead():
            process.unwind()
        self.loop.set_exception_handler(lambda *_: None)
        for process in self._dead():
            for thread in process.threads:
                thread.kill()
        self.loop.run_until_complete(self.loop.create_task(self._cancel_all()))
        self.disk.close_all()
        self.loop.close()

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note an error that nobody has seen to."""
        error, task = context.get("exception"), context.get("task")
        name = f" {task.get_name()}" if isinstance(task, asyncio.Task) else ""
        self.notes.failed("event loop", f"{context['message']}{name}{f': {error!r}' if error else ''}")

    async def _happen(self) -> list[str]:
        self.begin()
        faults = self.faults()
        vendor = Vendor(self.plan, self.ingest_address, self.notes, self.story)
        async with asyncio.TaskGroup() as group:
            group.create_task(vendor.play())
            for fault in self.plan.faults:
                group.create_task(faults.befall(fault))
        faults.all_over()
        return await self.end()

    def faults(self) -> Faults:
        """Return what can befall this world."""
        return Faults(
            ingests=self.ingests,
            workers=self.workers,
            broker=self.broker,
            database=self.database,
            disk=self.disk,
            network=self.network,
            clock=self.clock,
            story=self.story,
            notes=self.notes,
        )

    async def end(self) -> list[str]:
        """Let everything come to rest, end all programs, and return the violations. No fault may last any more."""
        self.story.tell("world", "all faults are over")
        is_at_rest = await self._rest(self.ingests, lambda: not self.spooled)
        # An idle ingest node turns all the time: the hours of the ladder go by faster without.
        await self._end(self.ingests)
        is_at_rest &= await self._rest(self.workers, lambda: not self.broker.waiting)
        if is_at_rest and self.plan.replays:
            is_at_rest = await self._replay()
        await self._end(self.workers)
        self.ended_at_s = self.clock.now_s
        self.story.tell("world", "ended")
        if not is_at_rest:
            self.notes.failed("world", "did not come to rest: something waits, or some process does not run")
        return [*self.notes.errors, *await self._judge()]

    async def _judge(self) -> list[str]:
        """Let the checker of real runs judge this world."""
        async with self.database.store() as store:
            stored = await read_store(store, key=KEY)
        waiting = [Waiting(place=place, count=count) for place, count in self.broker.waiting.items()]
        if self.spooled:
            waiting.append(Waiting(place="spools", count=self.spooled))
        outcome = Outcome(
            events=stored.events,
            dead_letters=stored.dead_letters,
            completions=stored.completions,
            recordings=stored.recordings,
            differing=stored.differing,
            waiting=tuple(waiting),
            places=("queues", "spools"),
            searched=("the store",),
            secrets=tuple(f"{what} is in the store" for what in stored.secrets),
        )
        findings = judge(self.notes.evidence(self._terms(), outcome))
        return [f"{number}: {one.text}" for number, one in findings.items() if one.judgement is Judgement.VIOLATED]

    def _terms(self) -> Terms:
        return Terms(
            scenario="simulation",
            consumers=tuple(consumer.name for consumer in self._custom),
            takes={
                consumer.name: () if UNRECOGNIZED in consumer.routing_keys else tuple(consumer.routing_keys)
                for consumer in self._custom
            },
            gives_up={consumer.name: consumer.attempts for consumer in self._custom},
            gives_up_at_once_with=(CANNOT_BE_HANDLED,),
            on_the_way_s=0.0,
            recovers_within_s=None,
            may_give_up="faults may last longer than its patience",
        )

    def _populate(self) -> None:
        make_spool = partial(
            UnsyncedSpool if Bug.ANSWERED_BEFORE_SPOOLED in self._bugs else Spool,
            # Idle ingest nodes turn ten times a second: that would be most of the work, and changes nothing but delays.
            turn_s=1.0,
            housekeeping_s=5.0,
            disk=self.disk,
            threads=VirtualThreads(),
            random_bytes=self._tokens.randbytes,
        )
        for number in range(self.plan.ingests):
            # Of one host, they adopt each other's files; else each has only its own of before.
            spool = self._folder / ("spool" if self.plan.is_one_host else f"spool{number}")
            program = Ingest(self.ingest_address, self.broker, spool, self.keys, make_spool=make_spool)
            self.ingests.append(self._member(f"ingest{number}", program))
        make_worker = partial(
            Worker,
            lease_s=self.plan.lease_s,
            new_lease_holder=self._new_lease_holder,
            is_dead=self._is_dead,
            monotonic_s=self.clock.monotonic,
            stall_watch=NoStallWatch,
        )
        for number in range(self.plan.workers):
            consumers = (*BUILT_IN, *self._custom)
            if self.plan.has_splitted_consumers and self.plan.workers > 1:
                consumers = (BUILT_IN, self._custom, (*BUILT_IN, *self._custom))[number]
            work = Work(consumers, self.broker, self.database, make_worker=make_worker)
            self.workers.append(
                self._member(f"worker{number}", work, on_death=partial(self.notes.disturbed, "death of a worker"))
            )
        for member in (*self.ingests, *self.workers):
            member.start()

    def _member(self, name: str, program: Program, on_death: Any = lambda: None) -> Member:
        return Member(
            name,
            program,
            loop=self.loop,
            story=self.story,
            notes=self.notes,
            rng=self._rng,
            on_death=on_death,
        )

    async def _rest(self, members: Sequence[Member], is_empty: Callable[[], bool]) -> bool:
        """Wait until nothing waits any more and all members run; False if that takes too long."""
        deadline_s = self.clock.now_s + REST_WITHIN_S
        calm = 0
        while self.clock.now_s < deadline_s:
            await asyncio.sleep(_POLL_S)
            do_run = all(member.process is not None and member.process.is_running for member in members)
            calm = calm + 1 if do_run and is_empty() else 0
            if calm > 2:  # noqa: PLR2004 - what was just taken out of one place may be on its way to the next
                return True
        return False

    async def _end(self, members: Sequence[Member]) -> None:
        for member in members:
            member.close()
        await asyncio.gather(*(member.end() for member in members))

    @property
    def spooled(self) -> int:
        """How many callbacks are in spools, set aside or not."""
        return sum(1 for folder in sorted(self._folder.glob("spool*")) for _ in waiting_callbacks(folder))

    async def _replay(self) -> bool:
        self.handlers.is_mended = True
        process = Process("operator", self.loop, tell=self.story.tell)
        self._others.append(process)
        await process.spawn(replay_dead_letters(process, self.broker, self.database), name="operator")
        return await self._rest(self.workers, lambda: not self.broker.waiting)

    def _dead(self) -> list[Process]:
        members = (*self.ingests, *self.workers)
        now = [member.process for member in members if member.process is not None]
        return [*now, *self._others, *(process for member in members for process in member.gone)]

    async def _cancel_all(self) -> None:
        me = asyncio.current_task()
        for _ in range(_UNWINDING_ROUNDS):
            left = [task for task in asyncio.all_tasks() if task is not me]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(1)

    def _new_lease_holder(self) -> str:
        process = _current()
        return f"{process.name}/{self._secrets.getrandbits(32):08x}"

    def _is_dead(self, lease_holder: str) -> bool:
        if not self.plan.is_one_host:
            return False
        name = lease_holder.partition("/")[0]
        return all(member.process is None or member.process.name != name for member in self.workers)


def _current() -> Process:
    process = PROCESS.get()
    assert process is not None  # noqa: S101 - owners are workers
    return process
