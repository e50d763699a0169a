"""A broker in memory: queues that outlive its crashes, sessions that do not."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from broker import ConsumerQueues, Message
from chaos.simulation.evidence import Story
from chaos.simulation.network import Network
from chaos.simulation.plan import Bug
from chaos.simulation.processes import Process
from chaos.simulation.virtual_time import VirtualLoop
from schemas import UNRECOGNIZED

#: From the arrival of a message until it is on the disks of a majority.
FSYNC_S = 0.003

#: How long what a dead process has sent can still arrive.
_LINGERING_S = 0.05


class Kept(Struct):
    """A message in a queue. `deliveries` counts those that came back."""

    message: Message
    deliveries: int = 0


class Receiver(Protocol):
    """The far end of a subscription."""

    queue: str

    def room(self) -> int:
        """Return how many more deliveries it takes."""

    def hand_over(self, tag: int, kept: Kept) -> None:
        """Take a delivery; called in the receiver's process."""


class Session:
    """A connection of one process, until it is lost. `on_lost` is called once then."""

    def __init__(self, broker: "Broker", process: Process, *, on_lost: Callable[[], None]) -> None:
        self.broker = broker
        self.process = process
        self.is_open = True
        self.receivers: list[Receiver] = []
        self.unacked: dict[int, tuple[str, Kept, Receiver]] = {}
        #: Deliveries on their way, and to whom.
        self.in_transit: dict[int, Receiver] = {}
        self._on_lost = on_lost

    def lose(self, why: str) -> None:
        """End the session: what it has not acknowledged is delivered again."""
        if not self.is_open:
            return
        self.is_open = False
        self.receivers.clear()
        self.broker.forget(self, why)
        self._on_lost()

    def settled(self, tag: int) -> None:
        """Take an acknowledgement that has arrived."""
        if self.is_open and tag in self.unacked:
            queue, kept, _ = self.unacked.pop(tag)
            self.broker.story.tell(self.process.name, "acked", queue, kept.message.event_id[:8])
            self.process.dies_at("acked")
            self.broker.pump(queue)

    def give_back(self, receiver: Receiver) -> None:
        """End one subscription: what it holds is delivered again."""
        if receiver in self.receivers:
            self.receivers.remove(receiver)
        for tag in [tag for tag, (_, _, holder) in self.unacked.items() if holder is receiver]:
            self.broker.requeue(*self.unacked.pop(tag)[:2])


class Broker:
    """Keeps what it has confirmed through every crash of its own. It starts up, with the queues of `consumers`."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        story: Story,
        consumers: Sequence[ConsumerQueues],
        bugs: frozenset[Bug],
    ) -> None:
        self.loop = loop
        self.network = network
        self.story = story
        self.bugs = bugs
        self.is_up = True
        self.is_blocked = False
        self.sessions: list[Session] = []
        self._consumers = consumers
        self._queues: dict[str, list[Kept]] = {}
        for queues in consumers:
            self._queues[queues.consumer] = []
            self._queues[f"{queues.consumer}.dead"] = []
        self.orphaned: list[Kept] = []
        self._retries: dict[int, tuple[float, str, Message]] = {}
        self._held_back: list[Callable[[], None]] = []
        self._life = 0
        self._tags = 0

    # what processes see --------------------------------------------------------------------------------------------
    def open(self, process: Process, *, on_lost: Callable[[], None]) -> Session | None:
        """Return a session, None while it is down."""
        if not self.is_up or process.is_dead:
            return None
        session = Session(self, process, on_lost=on_lost)
        process.on_death.append(lambda: self._peer_died(session))
        self.sessions.append(session)
        return session

    def receive(self, session: Session, keep: Callable[[], None], what: str, confirm: Callable[[bool], None]) -> None:
        """Take a publish that has arrived: keep it, then confirm. `confirm(False)`: the session is lost."""
        if not session.is_open:
            confirm(False)
            return
        if self.is_blocked:
            self._held_back.append(lambda: self.receive(session, keep, what, confirm))
            return
        self.loop.after(FSYNC_S, self._keep, self._life, session, keep, what, confirm)

    def consume(self, session: Session, receiver: Receiver) -> None:
        """Deliver to a receiver from now on."""
        if session.is_open:
            session.receivers.append(receiver)
            self.pump(receiver.queue)

    def pump(self, queue: str) -> None:
        """Deliver what waits in a queue to whoever takes it."""
        waiting = self._queues[queue]
        while waiting and self.is_up:
            takers = [
                (session, receiver)
                for session in self.sessions
                for receiver in session.receivers
                if receiver.queue == queue and receiver.room() > self._held_by(session, receiver)
            ]
            if not takers:
                return
            session, receiver = takers[self.network.pick(len(takers))]
            kept = waiting.pop(self.network.next_of(len(waiting)))
            self._tags += 1
            session.unacked[self._tags] = (queue, kept, receiver)
            session.in_transit[self._tags] = receiver
            self.loop.call_later(
                self.network.latency_s(), receiver.hand_over, self._tags, kept, context=session.process.context
            )

    # what is kept ----------------------------------------------------------------------------------------------------
    def route(self, message: Message) -> None:
        """Put an event into the queue of every consumer of its routing key."""
        bound = [queues.consumer for queues in self._consumers if message.routing_key in queues.routing_keys]
        for consumer in bound or [UNRECOGNIZED]:
            self.put(consumer, message)

    def put(self, queue: str, message: Message) -> None:
        """Put a message into one queue."""
        kept = Kept(message)
        if queue not in self._queues:
            self.orphaned.append(kept)
            return
        self._queues[queue].append(kept)
        self.pump(queue)

    def wait(self, consumer: str, message: Message, delay_s: float) -> None:
        """Let a message wait for its delay."""
        self._tags += 1
        self._retries[self._tags] = (self.loop.time() + delay_s, consumer, message)
        self.loop.after(delay_s, self._come_home)

    def requeue(self, queue: str, kept: Kept) -> None:
        """Put back what was delivered and not acknowledged."""
        kept.deliveries += 1
        self._queues[queue].insert(0, kept)
        self.pump(queue)

    def forget(self, session: Session, why: str) -> None:
        """Let go of a session that is lost."""
        self.story.tell(session.process.name, "session lost", why, len(session.unacked))
        self.sessions.remove(session)
        # The newest first: each goes to the front.
        for tag in sorted(session.unacked, reverse=True):
            queue, kept, _ = session.unacked.pop(tag)
            self.requeue(queue, kept)

    # what befalls it -------------------------------------------------------------------------------------------------
    def go_down(self) -> None:
        """Crash: what was not on disk yet is gone, all sessions are."""
        self.story.tell("broker", "down")
        self.is_up = False
        self._life += 1
        self._held_back.clear()
        for session in self.sessions[:]:
            session.lose("the broker is down")

    def come_up(self) -> None:
        """Start again with what was kept."""
        self.story.tell("broker", "up")
        self.is_up = True
        self.is_blocked = False
        self._come_home()

    def lose_sessions(self, first: int = 0) -> None:
        """Lose all connections but the first so many."""
        for session in self.sessions[first:]:
            session.lose("cut")

    def block(self) -> None:
        """Read nothing from those who publish: an alarm of memory or disk."""
        self.story.tell("broker", "blocked")
        self.is_blocked = True

    def unblock(self) -> None:
        """Read on."""
        if self.is_blocked:
            self.story.tell("broker", "unblocked")
            self.is_blocked = False
            held, self._held_back = self._held_back, []
            for go_on in held:
                go_on()

    @property
    def waiting(self) -> dict[str, int]:
        """How many messages are in each queue that is not empty, delivered or not; `retries` for those that wait."""
        counts = {name: len(queue) for name, queue in self._queues.items() if queue}
        for session in self.sessions:
            for queue, _, _ in session.unacked.values():
                counts[queue] = counts.get(queue, 0) + 1
        return counts | ({"retries": len(self._retries)} if self._retries else {}) | self._orphans()

    def _orphans(self) -> dict[str, int]:
        return {"orphaned": len(self.orphaned)} if self.orphaned else {}

    def _peer_died(self, session: Session) -> None:
        """Notice that a connection ended; what was still on its way may come first."""
        if self.network.lingers():
            self.loop.after(_LINGERING_S, session.lose, "died")
        else:
            session.lose("died")

    def _held_by(self, session: Session, receiver: Receiver) -> int:
        return sum(holder is receiver for _, _, holder in session.unacked.values())

    def _keep(
        self, life: int, session: Session, keep: Callable[[], None], what: str, confirm: Callable[[bool], None]
    ) -> None:
        if life != self._life:
            self.loop.after(self.network.latency_s(), confirm, False)
            return
        keep()
        self.story.tell("broker", "kept", what)
        if session.process.dies_at(f"{what.partition(' ')[0]} kept"):
            return
        if self.network.loses_confirm():
            self.story.tell("broker", "lost a confirm", what)
        else:
            self.loop.after(self.network.latency_s(), lambda: confirm(session.is_open))

    def _come_home(self) -> None:
        if not self.is_up:
            return
        # A timer can come a hair early.
        due = [tag for tag, (due_s, _, _) in self._retries.items() if due_s <= self.loop.time() + 1e-6]
        for tag in due:
            _, consumer, message = self._retries.pop(tag)
            self.put(consumer, message)
            if self.network.repeats():
                self.story.tell("broker", "repeated", consumer, message.event_id[:8])
                self.put(consumer, message)


def describe(message: Message, *details: Any) -> str:
    """Return a message as the story names it."""
    return " ".join([message.event_id[:8], f"attempt={message.attempt}", *map(str, details)])
