"""Whatever is published, settled, closed and killed, in any order: each event is where a simple model says."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from broker import Delivery, EmbeddedTransport, Message
from broker.embedded.consuming import EmbeddedSubscription
from tests.broker.consumers import ARCHIVE, FINISHED, REPORT
from tests.broker.inbox import TIMEOUT_S, eventually
from tests.profiles import examples

CONSUMERS = {"archive": ARCHIVE, "report": REPORT}
DELAY_S = 0.001


class Event:
    """What the model knows of one event in one consumer's queue."""

    def __init__(self) -> None:
        self.crashes = 0
        self.holder: Holder | None = None


class Holder:
    """A subscription and what it was handed."""

    def __init__(self, machine: "Transports", process: int, consumer: str) -> None:
        self.process = process
        self.consumer = consumer
        self.deliveries: list[Delivery] = []
        self.machine = machine
        self.subscription: EmbeddedSubscription = machine.transports[process].subscribe(
            CONSUMERS[consumer], self.on_delivery, prefetch=2
        )

    def on_delivery(self, delivery: Delivery) -> None:
        """Compare a delivery with the model."""
        event = self.machine.events[self.consumer, delivery.message.event_id]
        if event.holder is not None or event.crashes != delivery.crashes:
            self.machine.failures.append(f"{delivery.message} is with {event.holder}, {event.crashes} crashes")
        event.holder = self
        self.deliveries.append(delivery)


class Transports(RuleBasedStateMachine):
    """Two transports on one folder, each its own owner as two processes would be."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.events: dict[tuple[str, str], Event] = {}
        self.open: list[Holder] = []
        self.published = 0
        self.failures: list[object] = []
        self.runner.get_loop().set_exception_handler(lambda _, context: self.failures.append(context))
        self.transports = [self._transport(), self._transport()]

    def _transport(self) -> EmbeddedTransport:
        transport = EmbeddedTransport(self.folder, consumers=(ARCHIVE, REPORT), retry_delays_s=(DELAY_S,))
        self.runner.run(transport.__aenter__())
        return transport

    def _message(self, consumers: list[str]) -> Message:
        self.published += 1
        event_id = f"{self.published}"
        for consumer in consumers:
            self.events[consumer, event_id] = Event()
        return Message(body=b"{}", event_id=event_id, routing_key=FINISHED, received_at_us=1)

    @rule(process=st.sampled_from([0, 1]), count=st.integers(1, 3))
    def publish(self, process: int, count: int) -> None:
        """Publish a few events at the same time."""

        async def publish() -> None:
            messages = [self._message(["archive", "report"]) for _ in range(count)]
            await asyncio.gather(*(self.transports[process].publish(message) for message in messages))

        self.runner.run(publish())

    @rule(process=st.sampled_from([0, 1]), consumer=st.sampled_from(["archive", "report"]))
    def retry(self, process: int, consumer: str) -> None:
        """Let an event come back to one consumer."""
        message = self._message([consumer])
        self.runner.run(self.transports[process].retry(consumer, message, delay_s=DELAY_S))

    @rule(process=st.sampled_from([0, 1]), consumer=st.sampled_from(["archive", "report"]), target=holders)
    def subscribe(self, process: int, consumer: str) -> Holder:
        """Begin to take deliveries."""
        holder = Holder(self, process, consumer)
        self.open.append(holder)
        self.runner.run(holder.subscription.__aenter__())
        return holder

    @rule(holder=holders)
    def ack(self, holder: Holder) -> None:
        """Settle half of what a subscription was handed."""

        async def ack() -> None:
            await self._idle()
            for delivery in holder.deliveries[::2]:
                holder.deliveries.remove(delivery)
                is_held = holder in self.open
                if is_held:
                    del self.events[holder.consumer, delivery.message.event_id]
                # What a killed transport held is somebody else's by now.
                assert await delivery.ack() == is_held

        self.runner.run(ack())

    @rule(holder=consumes(holders))
    def close(self, holder: Holder) -> None:
        """Close a subscription, whatever it holds."""

        async def close() -> None:
            await self._idle()
            if holder in self.open:
                self._returns(holder)
                await holder.subscription.close()

        self.runner.run(close())

    @rule(process=st.sampled_from([0, 1]))
    def kill(self, process: int) -> None:
        """End a transport as SIGKILL does: nothing is let go, the kernel takes the lock away."""

        async def kill() -> None:
            await self._idle()
            transport = self.transports[process]
            for holder in [holder for holder in self.open if holder.process == process]:
                self._returns(holder)
                holder.subscription._is_open = False
            transport._watch._watched.clear()
            await transport._watch.close()
            await transport._commits.close()
            assert transport._owner._descriptor is not None
            os.close(transport._owner._descriptor)

        self.runner.run(kill())
        self.transports[process] = self._transport()

    def _returns(self, holder: Holder) -> None:
        self.open.remove(holder)
        for event in self.events.values():
            if event.holder is holder:
                event.holder = None
                event.crashes += 1

    async def _idle(self) -> None:
        """Wait until no claim is under way: its deliveries would count without having been seen."""
        async with asyncio.timeout(TIMEOUT_S):
            while any(holder.subscription._claiming is not None for holder in self.open):  # noqa: ASYNC110 - a look inside, not a state to wait for
                await asyncio.sleep(0)

    @invariant()
    def no_event_is_there_twice(self) -> None:
        """Count the queues."""

        async def check() -> None:
            states = await self.transports[0].inspect(["archive", "report"])
            for state in states:
                expected = sum(consumer == state.consumer for consumer, _ in self.events)
                # A retry that is not due yet is in no queue.
                assert state.ready + (state.unacked or 0) <= expected

        self.runner.run(check())
        assert not self.failures

    def teardown(self) -> None:
        """Drain both queues: exactly what the model has left comes, each event once."""

        async def drain() -> None:
            for holder in list(self.open):
                await self._idle()
                self._returns(holder)
                await holder.subscription.close()
            assert not self.failures
            drains = [Holder(self, 1, consumer) for consumer in CONSUMERS]
            for holder in drains:
                holder.subscription._taker.prefetch = 1000
                await holder.subscription.__aenter__()

            async def is_drained() -> bool:
                return sum(len(holder.deliveries) for holder in drains) == len(self.events)

            await eventually(is_drained, timeout_s=5)
            for holder in drains:
                assert all([await delivery.ack() for delivery in holder.deliveries])
            states = await self.transports[0].inspect(list(CONSUMERS))
            assert {(state.ready, state.unacked) for state in states} == {(0, 0)}

        async def end() -> None:
            for transport in self.transports:
                await transport.__aexit__()

        try:
            try:
                self.runner.run(drain())
            finally:
                self.runner.run(end())
            assert not self.failures
            assert [path.name for path in self.folder.iterdir()] == ["transport.db"]
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)


TestEmbeddedTransports = Transports.TestCase
TestEmbeddedTransports.settings = examples(quick=20, thorough=400, steps=25)
