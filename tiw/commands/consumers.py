"""`tiw consumers [list|remove]`."""

import argparse

from broker import BUILT_IN_CONSUMERS, MissingQueueError
from store import check_schema, unregister_consumer
from tiw.opening import open_store, open_transport
from tiw.output import print_json, print_table, require_broker, show_iso
from tiw.settings import FailedError, Settings, UsageError
from workers import ConsumerState, consumer_states


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print consumers with the counts of their queues."""
    async with open_store(settings) as store, open_transport(settings) as transport:
        await check_schema(store)
        await require_broker(transport)
        states = await consumer_states(transport, store)
        is_told_by_consumer = all(state.retrying is not None for state in states)
        retrying = 0 if is_told_by_consumer else await transport.count_retrying()
    if args.name is not None:
        states = [state for state in states if state.name == args.name]
        if not states:
            raise FailedError(f"there is no consumer {args.name!r}, or it has no queue yet")
    if args.json:
        print_json(states)
        return 0
    print_table(
        ["consumer", "state", "ready", "retrying", "dead", "next retry UTC", "connected", "unacked", "events", "queue"],
        [
            (
                state.name,
                _words(state),
                state.ready,
                state.retrying,
                state.dead,
                show_iso(state.next_retry_at or ""),
                state.connected,
                state.unacked,
                ", ".join(state.events),
                state.queue,
            )
            for state in states
        ],
        empty="No consumers: nothing has been started yet.",
        spare=["queue", "events", "unacked", "connected"],
        wide=args.wide,
    )
    if retrying:
        print(f"{retrying} events of all consumers wait for their next attempt; RabbitMQ does not tell whose.")
    return 0


def _words(state: ConsumerState) -> str:
    if state.overdue:
        return f"stuck with {state.overdue}"
    return "no worker" if state.abandoned else "ok"


async def remove(settings: Settings, args: argparse.Namespace) -> int:
    """Delete a user's consumer: its queues and its entry in the registry."""
    if args.name in {consumer.consumer for consumer in BUILT_IN_CONSUMERS}:
        raise UsageError(f"{args.name} is built in: its queue is where its events are kept")
    async with open_store(settings) as store, open_transport(settings) as transport:
        await check_schema(store)
        await require_broker(transport)
        (state,) = await transport.inspect([args.name])
        if state.connected and not args.force:
            raise FailedError(f"{args.name} runs and would make its queue anew: stop it first, or use --force")
        waiting = state.ready + state.dead
        if waiting and not args.force:
            raise FailedError(f"{waiting} events wait in the queues of {args.name}: --force loses them to it")
        try:
            await transport.remove(args.name, force=args.force)
        except MissingQueueError as error:
            if not await unregister_consumer(store, args.name):
                raise FailedError(f"there is no consumer {args.name!r}") from error
        else:
            await unregister_consumer(store, args.name)
    print(f"{args.name} is removed")
    return 0
