"""Whoever looks after the system: mends what made handlers fail, and has the dead letters handled again."""

from broker import DEFAULT_RETRY_DELAYS_S, Message, NotPublishedError
from chaos.simulation.broker import Broker
from chaos.simulation.database import Database
from chaos.simulation.processes import Process
from chaos.simulation.transport import SimulatedTransport
from store import forget, mark_replayed, pages_of_dead_letters


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
                )
                await forget(store, consumer=letter.consumer, event_ids=[letter.event_id])
                while True:
                    try:
                        await transport.send(letter.consumer, message)
                    except NotPublishedError:
                        continue
                    break
                await mark_replayed(store, [letter])
