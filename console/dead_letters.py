"""Dead letters: what consumers gave up on and why, what that needs, and giving it back to them or deleting it."""

import re
import time
from collections.abc import Collection, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode

from msgspec import Struct

from broker import QueueState
from console.bodies import shown_body
from console.rendering import attempt, command_line, option, plain
from console.requests import Answer, BadInputError, Done, Request, Route, Shown, Translate, Unknown
from store import (
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterRow,
    Page,
    Store,
    count_replayed,
    first_line_of,
    group_dead_letters,
    pattern_of,
    search_dead_letters,
)
from workers import (
    BUILT_IN,
    Affected,
    LetterSelection,
    PurgedDeadLetters,
    Replayed,
    ReplayedDeadLetters,
    count_letters,
    known_consumers,
    preview_letters,
    purge_letters,
    replay_letters,
)

#: A replay that takes longer goes on with the next press of the button: nobody waits for a page for minutes.
REPLAYED_WITHIN_S: Final = 20.0

#: What the broker may take to say what waits; the page does not wait for longer.
_PATIENCE_S: Final = 2.0

#: A traceback is a few kilobytes; what others put there is not.
_SHOWN_CHARACTERS: Final = 10_000

#: What became of a replay is looked for by itself for so long.
FOLLOWED_FOR_S: Final = 900.0

#: Of these it is the event in the store that says that they handled it.
_KEEPERS: Final = frozenset(one.queues.consumer for one in BUILT_IN)

Action: TypeAlias = Literal["replay", "purge"]

#: What puts it right, by the beginning of the reason; the first that fits.
_NEEDS: Final = (
    ("crashed", re.compile(r"worker crashed|the broker gave up")),
    ("not_verified", re.compile(r"not verified within")),
    ("unverifiable", re.compile(r"it cannot be verified")),
    ("contradicted", re.compile(r"the vendor contradicts it")),
    ("too_slow", re.compile(r"no answer within .* s$|the handler cancelled itself")),
    ("returned", re.compile(r"the handler returned |what the handler came to|the handler would have ended")),
    (
        "elsewhere",
        re.compile(
            r"(?:\w*(?:Connect|Connection|Disconnected|Timeout|TimedOut|Network|Socket|DNS|SSL|TLS|Http|HTTP)\w*"
            r"|gaierror|OSError|BrokenPipeError|EndpointConnectionError)(?::|$)"
        ),
    ),
    ("asked", re.compile(r"the handler asked for another attempt")),
    (
        "raised",
        re.compile(r"[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration|Group|Failed|Failure)(?::|$)"),
    ),
)


def needs_of(reason: str) -> str:
    """Return what a dead letter with this reason needs, as the last part of a text's key."""
    return next((need for need, begins in _NEEDS if begins.match(reason)), "given_up")


async def list_letters(request: Request) -> Answer:
    """Show what is to be mended, or the letters of one group one by one."""
    query = request.query
    if request.wants_json or any(name in query for name in ("reason", "id", "all", "resolved", "replay")):
        return await _listing(request)
    consumer = query.get("consumer") or None
    store = request.console.store
    groups = await group_dead_letters(store, consumer=consumer)
    known = await known_consumers(store)
    states = await _states(request, {*known, *(group.consumer for group in groups)})
    return Shown(
        template="dead_letters.html",
        title=request.t("dead_letters.title"),
        values={
            "groups": [_group(group, states) for group in groups],
            "is_at_least": any(group.is_at_least for group in groups),
            "consumers": sorted({*known, *(group.consumer for group in groups), *([consumer] if consumer else [])}),
            "consumer": consumer,
            "waiting": _waiting(states),
            "rows": None,
        },
        document=[],
        command=command_line("tiw", "dead-letters", "list", *option("--consumer", consumer)),
    )


async def _listing(request: Request) -> Shown:
    query = request.query
    chosen = DeadLetterFilter(
        consumer=query.get("consumer") or None,
        reason=query.get("reason"),
        event_id=query.get("id") or None,
        resolved=query.get("resolved") == "1",
        replay_at_us=_moment(request.t, query.get("replay")),
    )
    page = await _search(request, chosen)
    address = _members(consumer=chosen.consumer, reason=chosen.reason, id=chosen.event_id)
    is_group = chosen.consumer is not None and chosen.reason is not None
    is_empty = page.next is None and not page.rows
    may_change = not chosen.resolved and chosen.replay_at_us is None and not is_empty
    return Shown(
        template="dead_letters.html",
        title=request.t("dead_letters.title"),
        values={
            "rows": [_row(letter) for letter in page.rows],
            "searched_until_us": page.searched_until_us,
            "is_last": page.next is None,
            "chosen": chosen,
            "needs": needs_of(chosen.reason or "") if is_group else None,
            "has_reasons": not is_group or any(first_line_of(row.reason) != chosen.reason for row in page.rows),
            "replay": f"/dead-letters/replay?{address}" if may_change else None,
            "purge": f"/dead-letters/purge?{address}" if may_change else None,
        },
        document=page.rows,
        command=command_line(
            *("tiw", "dead-letters", "list"),
            *option("--consumer", chosen.consumer),
            *option("--event-id", chosen.event_id),
            *option("--reason", chosen.reason),
            *(("--replayed",) if chosen.resolved else ()),
        ),
        next=None
        if page.next is None
        else _members(
            consumer=chosen.consumer,
            reason=chosen.reason,
            id=chosen.event_id,
            resolved="1" if chosen.resolved else None,
            replay=query.get("replay"),
            all="1" if not is_group else None,
            after=page.next,
        ),
    )


async def show_letter(request: Request) -> Answer:
    """Show one letter whole."""
    consumer, event_id = request.query.get("consumer", ""), request.query.get("id", "")
    store = request.console.store
    letter, is_resolved = await _find(store, consumer, event_id)
    if letter is None:
        return Shown(
            template="dead_letter.html",
            title=request.t("dead_letter.title"),
            values={"letter": None, "consumer": consumer, "event_id": event_id},
            document=[],
            status=404,
        )
    address = _members(consumer=consumer, id=event_id)
    states = await _states(request, {consumer})
    return Shown(
        template="dead_letter.html",
        title=request.t("dead_letter.title"),
        values={
            "letter": letter,
            "is_resolved": is_resolved,
            "needs": needs_of(letter.reason),
            "has_crashed": needs_of(letter.reason) == "crashed",
            "traceback": plain(letter.traceback, _SHOWN_CHARACTERS, lines=True),
            "body_shown": shown_body(letter),
            "state": states.get(consumer) if isinstance(states, Mapping) else None,
            "same": _members(consumer=consumer, reason=pattern_of(letter.reason)),
            "replay": f"/dead-letters/replay?{address}",
            "purge": f"/dead-letters/purge?{address}",
        },
        document=[letter],
        command=command_line(
            *("tiw", "dead-letters", "show", "--consumer", consumer, "--event-id", event_id),
            *(("--replayed",) if is_resolved else ()),
        ),
    )


async def preview_replay(request: Request) -> Answer:
    """Say what a replay would do, and change nothing."""
    return await _preview(request, "replay", _selection(request.query, request.t))


async def preview_purge(request: Request) -> Answer:
    """Say what would be deleted, and change nothing."""
    return await _preview(request, "purge", _selection(request.query, request.t))


async def _preview(
    request: Request, action: Action, selection: LetterSelection, *, problem: str | None = None
) -> Shown:
    t, console = request.t, request.console
    # Before the letters are counted: what fails from now on is not among those that somebody has seen.
    until_us = selection.until_us or time.time_ns() // 1000
    selection = LetterSelection(
        consumer=selection.consumer,
        reason=selection.reason,
        event_id=selection.event_id,
        until_us=until_us,
    )
    is_replay = action == "replay"
    if is_replay:
        affected = await preview_letters(console.store, console.transport, selection)
    else:
        counts = await count_letters(console.store, selection)
        affected = [Affected(consumer=consumer, count=counts[consumer]) for consumer in sorted(counts)]
    count = sum(one.count for one in affected)
    return Shown(
        template="dead_letters_change.html",
        title=t("dead_letters.replay_title") if is_replay else t("dead_letters.purge_title"),
        values={
            "action": action,
            "selection": selection,
            "affected": affected,
            "count": count,
            # Those of consumers without a queue stay.
            "going": sum(one.count for one in affected if one.has_queue is not False),
            "is_broker_known": all(one.has_queue is not None for one in affected),
            "needs": None if selection.reason is None else needs_of(selection.reason),
            "problem": problem,
            "at_us": _moment(t, request.query.get("at")),
            "back": _back(selection),
        },
        document=ReplayedDeadLetters(replayed=0, matching=count)
        if is_replay
        else PurgedDeadLetters(purged=0, matching=count),
        command=command_line(*_change_command(action, selection), "--dry-run"),
        status=200 if problem is None else 400,
    )


async def replay(request: Request) -> Answer:
    """Give letters back to their consumers, as many as there is time for, and lead to what becomes of them."""
    selection = _selection(request.form, request.t)
    console = request.console
    # What goes with the next press is of the same replay.
    at_us = _moment(request.t, request.form.get("at"))
    began_us = time.time_ns() // 1000 if at_us is None else at_us
    async with console.turn("dead letters"):
        done = await replay_letters(
            console.store, console.transport, selection, within_s=REPLAYED_WITHIN_S, replay_at_us=began_us
        )
    text = _told(request.t, done)
    await request.note("dead-letters.replay", _noted(selection), f"{done.count} replayed{_in_words(done)}")
    is_done = not done.stopped and not done.without_queue
    has_begun = done.count > 0 or at_us is not None
    if done.is_more or done.stopped:
        begun = {"at": str(began_us)} if has_begun else {}
        to = f"/dead-letters/replay?{_members(**_named(selection), **begun)}"
    else:
        to = f"/dead-letters/replayed?at={began_us}" if has_begun else _back(selection)
    return Done(text=text, to=to, ok=is_done)


class ReplayOutcome(Struct, frozen=True, kw_only=True):
    """What became of the letters that a replay gave back to a consumer; `open`: nothing is known of them yet."""

    consumer: str
    count: int
    handled: int
    failed_again: int
    open: int


async def show_replayed(request: Request) -> Answer:
    """Show what became of a replay, and look again while something is on its way."""
    at_us = _moment(request.t, request.query.get("at"))
    if at_us is None:
        raise BadInputError(request.t("dead_letters.bad_until"))
    outcomes = []
    for one in await count_replayed(request.console.store, at_us):
        handled = one.kept if one.consumer in _KEEPERS else one.completed
        left = one.count - handled - one.failed_again
        outcomes.append(
            ReplayOutcome(
                consumer=one.consumer, count=one.count, handled=handled, failed_again=one.failed_again, open=left
            )
        )
    waiting = [one.consumer for one in outcomes if one.open]
    is_old = time.time() - at_us / 1_000_000 > FOLLOWED_FOR_S
    return Shown(
        template="dead_letters_replayed.html",
        title=request.t("replayed.title"),
        values={
            "at_us": at_us,
            "outcomes": [
                (one, f"/dead-letters?{_members(consumer=one.consumer, replay=str(at_us))}") for one in outcomes
            ],
            "handled": sum(one.handled for one in outcomes),
            "failed_again": sum(one.failed_again for one in outcomes),
            "open": sum(one.open for one in outcomes),
            "failed": f"/dead-letters?replay={at_us}",
            "states": await _states(request, waiting) if waiting else {},
            "follow": bool(waiting) and not is_old,
        },
        document=outcomes,
        command=command_line("tiw", "dead-letters", "list"),
    )


async def purge(request: Request) -> Answer:
    """Delete letters for good, if it was confirmed how many they are."""
    t = request.t
    selection = _selection(request.form, t)
    expected = request.form.get("expected", "")
    if not expected or request.form.get("count", "").strip() != expected:
        await request.note("dead-letters.purge", _noted(selection), "not confirmed")
        is_one = expected == "1"
        problem = (
            t("dead_letters.not_confirmed_one")
            if is_one
            else t("dead_letters.not_confirmed", number=plain(expected, 20))
        )
        return await _preview(request, "purge", selection, problem=problem)
    async with request.console.turn("dead letters"):
        count = await purge_letters(request.console.store, selection)
    await request.note("dead-letters.purge", _noted(selection), f"{count} deleted")
    text = t("dead_letters.purged", count=count) if count else t("dead_letters.nothing_left")
    return Done(text=text, to="/dead-letters", ok=bool(count))


def _selection(values: Mapping[str, str], t: Translate) -> LetterSelection:
    return LetterSelection(
        consumer=values.get("consumer") or None,
        reason=values.get("reason"),
        event_id=values.get("id") or None,
        until_us=_moment(t, values.get("until")),
    )


def _moment(t: Translate, text: str | None) -> int | None:
    """Return microseconds since the Unix epoch. Raises `BadInputError` for anything else."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise BadInputError(t("dead_letters.bad_until"))
    return int(text)


def _told(t: Translate, done: Replayed) -> str:
    sentences = [t("dead_letters.replayed", count=done.count)] if done.count else []
    if done.without_queue:
        names = ", ".join(plain(name, 80) for name in done.without_queue[:5])
        sentences.append(t("dead_letters.left", names=names))
    if done.stopped:
        sentences.append(t("dead_letters.stopped", reason=plain(done.stopped, 300)))
    if done.is_more:
        sentences.append(t("dead_letters.time_up"))
    return " ".join(sentences) or t("dead_letters.nothing_left")


def _in_words(done: Replayed) -> str:
    words = [f"no queue: {', '.join(done.without_queue)}"] if done.without_queue else []
    words += [f"stopped: {done.stopped}"] if done.stopped else []
    return "".join(f"; {word}" for word in [*words, *(["the time was up"] if done.is_more else [])])


def _noted(selection: LetterSelection) -> dict[str, object]:
    named = {"consumer": selection.consumer, "reason": selection.reason, "event_id": selection.event_id}
    return {name: value for name, value in named.items() if value is not None}


def _named(selection: LetterSelection) -> dict[str, str | None]:
    return {"consumer": selection.consumer, "reason": selection.reason, "id": selection.event_id}


def _change_command(action: Action, selection: LetterSelection) -> tuple[str, ...]:
    return (
        *("tiw", "dead-letters", action),
        *option("--consumer", selection.consumer),
        *option("--event-id", selection.event_id),
        *option("--reason", selection.reason),
    )


def _address(selection: LetterSelection) -> str:
    return _members(**_named(selection))


def _back(selection: LetterSelection) -> str:
    """Return the page with what else is there of the kind."""
    if selection.consumer is None:
        return "/dead-letters"
    if selection.reason is not None and selection.event_id is None:
        return f"/dead-letters?{_address(selection)}"
    return f"/dead-letters?{_members(consumer=selection.consumer)}"


def _members(**members: str | None) -> str:
    given = {name: value for name, value in members.items() if value is not None}
    return urlencode(given, errors="replace")


async def _states(request: Request, consumers: Collection[str]) -> dict[str, QueueState] | Unknown:
    transport = request.console.transport
    if not transport.is_ready:
        return Unknown(reason=request.t("dead_letters.broker_away"))
    states = await attempt(transport.inspect(sorted(consumers)), timeout_s=_PATIENCE_S)
    return states if isinstance(states, Unknown) else {state.consumer: state for state in states}


def _waiting(states: dict[str, QueueState] | Unknown) -> list[QueueState] | Unknown:
    """Return the consumers of which letters are still in a queue."""
    return states if isinstance(states, Unknown) else [state for state in states.values() if state.dead]


def _group(group: DeadLetterGroup, states: dict[str, QueueState] | Unknown) -> dict[str, object]:
    address = _members(consumer=group.consumer, reason=group.reason)
    return {
        "group": group,
        "has_reasons": group.first_reason != group.last_reason,
        "needs": needs_of(group.reason),
        "state": None if isinstance(states, Unknown) else states.get(group.consumer),
        "letters": f"/dead-letters?{address}",
        "newest": f"/dead-letter?{_members(consumer=group.consumer, id=group.newest_event_id)}",
        "replay": f"/dead-letters/replay?{address}",
        "purge": f"/dead-letters/purge?{address}",
    }


def _row(letter: DeadLetterRow) -> dict[str, object]:
    return {
        "letter": letter,
        "address": f"/dead-letter?{_members(consumer=letter.consumer, id=letter.event_id)}",
    }


async def _search(request: Request, chosen: DeadLetterFilter) -> Page[DeadLetterRow]:
    try:
        return await search_dead_letters(request.console.store, chosen, after=request.query.get("after") or None)
    except ValueError as error:
        raise BadInputError(request.t("dead_letters.bad_place")) from error


async def _find(store: Store, consumer: str, event_id: str) -> tuple[DeadLetterRow | None, bool]:
    """Return a letter, and whether it was replayed since."""
    for is_resolved in (False, True):
        chosen = DeadLetterFilter(consumer=consumer, event_id=event_id, resolved=is_resolved)
        page = await search_dead_letters(store, chosen, limit=1, bodies=True)
        if page.rows:
            return page.rows[0], is_resolved
    return None, False


ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/dead-letters", handler=list_letters),
    Route(method="GET", path="/dead-letter", handler=show_letter),
    Route(method="GET", path="/dead-letters/replay", handler=preview_replay),
    Route(method="POST", path="/dead-letters/replay", handler=replay, role="operate"),
    Route(method="GET", path="/dead-letters/replayed", handler=show_replayed),
    Route(method="GET", path="/dead-letters/purge", handler=preview_purge),
    Route(method="POST", path="/dead-letters/purge", handler=purge, role="operate"),
)
