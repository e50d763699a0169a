"""The faults of a plan, as they befall a world."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import structs

from broker import DEFAULT_RETRY_DELAYS_S, Message, NotPublishedError
from chaos.simulation.broker import Broker
from chaos.simulation.database import Database
from chaos.simulation.disk import Disk
from chaos.simulation.evidence import Notes, Story
from chaos.simulation.network import Network
from chaos.simulation.plan import INGEST_POINTS, Fault, Trouble
from chaos.simulation.processes import Process
from chaos.simulation.programs import Member
from chaos.simulation.transport import SimulatedTransport
from chaos.simulation.virtual_time import Clock
from store import forget, mark_replayed, pages_of_dead_letters

#: A broker hears nothing of a stopped process for so long before it gives up its session.
HEARTBEAT_S = 60.0

_STORM = {"repeated": 0.05, "lost_confirms": 0.1, "lost_answers": 0.5, "slow": 0.5, "slow_s": 4.0}


class Faults:
    """Lets troubles begin and end; what it has begun is over when `all_over` returns."""

    def __init__(
        self,
        *,
        ingests: Sequence[Member],
        workers: Sequence[Member],
        broker: Broker,
        database: Database,
        disk: Disk,
        network: Network,
        clock: Clock,
        story: Story,
        notes: Notes,
    ) -> None:
        self._ingests = ingests
        self._workers = workers
        self._broker = broker
        self._database = database
        self._disk = disk
        self._network = network
        self._clock = clock
        self._story = story
        self._notes = notes
        self._calm = network.weather
        self._begins: dict[Trouble, Callable[[Fault], None]] = {
            Trouble.CRASH_AT_POINT: self._doom,
            Trouble.CRASH_IN_STEPS: self._doom,
            Trouble.CRASH_ALL: self._kill_all,
            Trouble.BROKER_DOWN: lambda _: broker.go_down(),
            Trouble.BROKER_BLOCKED: lambda _: broker.block(),
            Trouble.SESSIONS_LOST: self._lose_sessions,
            Trouble.STORE_AWAY: self._send_store_away,
            Trouble.STORM: self._let_storm,
            Trouble.DISK_FAILS: self._fail_disk,
            Trouble.CLOCK_STEPS: self._step_clock,
        }
        self._ends: dict[Trouble, Callable[[], None]] = {
            Trouble.CRASH_ALL: self._come_up,
            Trouble.BROKER_DOWN: self._come_up,
            Trouble.BROKER_BLOCKED: broker.unblock,
            Trouble.STORE_AWAY: database.come_back,
            Trouble.STORM: self._calm_down,
            Trouble.DISK_FAILS: self._mend_disk,
        }

    async def befall(self, fault: Fault) -> None:
        """Let one trouble begin in its time, last, and end."""
        await asyncio.sleep(fault.at_s)
        self._story.tell("fault", fault.trouble, fault.detail, f"{fault.lasts_s:.1f} s")
        if fault.trouble is Trouble.STOP:
            await self._stop(self._member(fault), fault.lasts_s)
        elif fault.trouble is Trouble.RESTART:
            await self._member(fault).restart()
        else:
            self._begins[fault.trouble](fault)
        await asyncio.sleep(fault.lasts_s)
        self._end(fault)

    def all_over(self) -> None:
        """End what may still last."""
        self._calm_down()
        self._mend_disk()
        self._broker.unblock()
        self._come_up()
        self._database.come_back()
        for member in (*self._ingests, *self._workers):
            if member.process is not None:
                member.process.crash_at = member.process.crash_in_steps = None
                member.process.go_on()

    def _end(self, fault: Fault) -> None:
        end = self._ends.get(fault.trouble)
        if end is not None:
            end()

    def _kill_all(self, fault: Fault) -> None:
        del fault
        for member in (*self._ingests, *self._workers):
            if member.process is not None:
                member.process.crash("killed")
        self._broker.go_down()

    def _come_up(self) -> None:
        if not self._broker.is_up:
            self._broker.come_up()

    def _lose_sessions(self, fault: Fault) -> None:
        self._broker.lose_sessions(fault.pick % 3)

    def _send_store_away(self, fault: Fault) -> None:
        del fault
        self._notes.disturbed("store away")
        self._database.go_away()

    def _let_storm(self, fault: Fault) -> None:
        del fault
        self._network.weather = structs.replace(self._calm, **_STORM)

    def _calm_down(self) -> None:
        self._network.weather = self._calm

    def _fail_disk(self, fault: Fault) -> None:
        self._story.tell("disk", "fails", fault.pick)
        self._disk.fails = True

    def _mend_disk(self) -> None:
        self._disk.fails = False

    def _step_clock(self, fault: Fault) -> None:
        self._notes.disturbed("clock step", repeats=0, steps_clock=True)
        self._clock.step_wall_clock((-1) ** fault.pick * fault.lasts_s)

    def _member(self, fault: Fault) -> Member:
        members = [*self._ingests, *self._workers]
        if fault.trouble is Trouble.CRASH_AT_POINT:
            members = [*(self._ingests if fault.detail in INGEST_POINTS else self._workers)]
        return members[fault.pick % len(members)]

    def _doom(self, fault: Fault) -> None:
        process = self._member(fault).process
        if process is None:
            return
        if fault.trouble is Trouble.CRASH_AT_POINT:
            process.crash_at = fault.detail
        else:
            process.crash_in_steps = fault.steps

    async def _stop(self, member: Member, lasts_s: float) -> None:
        process = member.process
        if process is None:
            return
        process.stop()
        self._notes.disturbed("stop")
        await asyncio.sleep(min(lasts_s, HEARTBEAT_S))
        if lasts_s > HEARTBEAT_S:
            for session in [session for session in self._broker.sessions if session.process is process]:
                session.lose("no heartbeat")
            await asyncio.sleep(lasts_s - HEARTBEAT_S)
        process.go_on()


async def replay_dead_letters(process: Process, broker: Broker, database: Database) -> None:
    """Do in `process` what `tiw dead-letters replay` does, in its order: forget, send, mark."""
    async with database.store() as store, SimulatedTransport(broker, process, DEFAULT_RETRY_DELAYS_S) as transport:
        async for page in pages_of_dead_letters(store):
            for letter in page:
                message = Message(
                    body=letter.body,
                    event_id=letter.event_id,
                    routing_key=letter.routing_key,
                    received_at_us=letter.received_at_us,
                    trace=letter.trace,
                    source=letter.source,
                )
                await forget(store, consumer=letter.consumer, event_ids=[letter.event_id])
                while True:
                    try:
                        await transport.send(letter.consumer, message)
                    except NotPublishedError:
                        continue
                    break
                await mark_replayed(store, [letter])
