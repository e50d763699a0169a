import asyncio
import json

import msgspec
import pytest

from store import (
    DeadLetter,
    Store,
    count_dead_letters,
    keep_dead_letters,
    list_dead_letters,
    mark_replayed,
    pages_of_dead_letters,
    purge_dead_letters,
)

LETTER = DeadLetter(
    consumer="archive",
    event_id="e" * 32,
    event_type="OnlineRecordFinished",
    sdk_app_id=1,
    attempts=8,
    reason="no space left",
    first_failed_at_us=1_767_225_600_000_000,
    last_failed_at_us=1_767_225_600_000_001,
    body=b'{"a":1}',
    routing_key="OnlineRecordFinished",
    received_at_us=1_767_225_599_000_000,
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def changed(**changes: object) -> DeadLetter:
    return msgspec.structs.replace(LETTER, **changes)


async def whole(store: Store, *, page: int = 100) -> list[DeadLetter]:
    return [letter async for letters in pages_of_dead_letters(store, page=page) for letter in letters]


async def test_a_dead_letter_is_listed_as_documented(store: Store) -> None:
    await keep_dead_letters(store, [LETTER])
    assert json.loads(msgspec.json.encode(await list_dead_letters(store))) == [
        {
            "consumer": "archive",
            "event_id": "e" * 32,
            "event_type": "OnlineRecordFinished",
            "sdk_app_id": 1,
            "task_id": None,
            "attempts": 8,
            "reason": "no space left",
            "traceback": "",
            "first_failed_at": "2026-01-01T00:00:00.000000Z",
            "last_failed_at": "2026-01-01T00:00:00.000001Z",
        }
    ]
    (row,) = await list_dead_letters(store, bodies=True)
    assert row.body == '{"a":1}'
    assert await whole(store) == [LETTER]


async def test_the_same_letter_twice_is_one(store: Store) -> None:
    await keep_dead_letters(store, [LETTER, LETTER])
    await keep_dead_letters(store, [LETTER])
    await keep_dead_letters(store, [])
    assert await count_dead_letters(store) == {"archive": 1}


@pytest.mark.parametrize("later_first", [True, False])
async def test_the_letter_that_failed_last_counts(store: Store, *, later_first: bool) -> None:
    later = changed(last_failed_at_us=LETTER.last_failed_at_us + 1, reason="later", attempts=9)
    for letter in (later, LETTER) if later_first else (LETTER, later):
        await keep_dead_letters(store, [letter])
    assert await whole(store) == [later]


async def test_a_replayed_letter_is_gone_until_it_fails_anew(store: Store) -> None:
    await keep_dead_letters(store, [LETTER])
    await mark_replayed(store, [LETTER])
    await mark_replayed(store, [])
    assert await list_dead_letters(store) == []
    assert await whole(store) == []
    assert await count_dead_letters(store) == {}
    await keep_dead_letters(store, [LETTER])
    assert await list_dead_letters(store) == []
    anew = changed(last_failed_at_us=LETTER.last_failed_at_us + 1)
    await keep_dead_letters(store, [anew])
    assert await whole(store) == [anew]


async def test_a_letter_that_failed_anew_meanwhile_is_not_marked(store: Store) -> None:
    anew = changed(last_failed_at_us=LETTER.last_failed_at_us + 1)
    await keep_dead_letters(store, [LETTER])
    await keep_dead_letters(store, [anew])
    await mark_replayed(store, [LETTER])
    assert await whole(store) == [anew]


async def test_listings_are_newest_first_and_filtered(store: Store) -> None:
    letters = [
        changed(consumer=consumer, event_id=str(number), sdk_app_id=number % 2, last_failed_at_us=number)
        for number, consumer in enumerate(["a", "b", "a", "b"])
    ]
    await keep_dead_letters(store, letters)

    async def ids(**options: object) -> list[str]:
        return [row.event_id for row in await list_dead_letters(store, **options)]  # type: ignore[arg-type]

    assert await ids() == ["3", "2", "1", "0"]
    assert await ids(limit=1) == ["3"]
    assert await ids(limit=0) == ["3", "2", "1", "0"]
    assert await ids(consumer="a") == ["2", "0"]
    assert await ids(event_id="1") == ["1"]
    assert await ids(since_us=2) == ["3", "2"]
    assert await ids(app=0) == ["2", "0"]
    assert await count_dead_letters(store) == {"a": 2, "b": 2}


async def test_they_are_chosen_by_their_reason_and_by_when_somebody_saw_them(store: Store) -> None:
    reasons = ["KeyError: 'a'", "KeyError: 'a' and more", "KEYERROR: 'A'", "%", "x" * 300, "first\nsecond", "_"]
    await keep_dead_letters(
        store,
        [changed(event_id=f"{at}", reason=reason, last_failed_at_us=10 + at) for at, reason in enumerate(reasons)],
    )

    async def chosen(**options: object) -> list[str]:
        pages = pages_of_dead_letters(store, **options)  # type: ignore[arg-type]
        ids = [letter.event_id async for page in pages for letter in page]
        assert sum((await count_dead_letters(store, **options)).values()) == len(ids)  # type: ignore[arg-type]
        return ids

    assert await chosen(reason_start="KeyError: 'a'") == ["0"]
    assert await chosen(reason_start="KeyError") == []
    assert await chosen(reason_start="%") == ["3"]
    assert await chosen(reason_start="x" * 200) == ["4"]
    assert await chosen(reason_start="first") == ["5"]
    assert await chosen(reason_start="") == []
    assert await chosen(reason_start="\0\ud800") == []
    assert await chosen(consumer="\0") == []
    assert await chosen(until_us=11) == ["0", "1"]
    assert [row.event_id for row in await list_dead_letters(store, reason_start="_")] == ["6"]
    assert await purge_dead_letters(store, until_us=15, reason_start="KeyError: 'a'") == 1
    assert await chosen() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("page", [1, 2, 3, 4, 100])
async def test_pages_give_every_letter_once_even_if_it_is_replayed_meanwhile(store: Store, page: int) -> None:
    letters = [changed(event_id=str(number)) for number in range(4)]
    await keep_dead_letters(store, letters)
    seen: list[DeadLetter] = []
    async for some in pages_of_dead_letters(store, page=page):
        assert 1 <= len(some) <= page
        seen.extend(some)
        await mark_replayed(store, some)
    assert seen == letters
    assert await whole(store) == []


async def test_purging_deletes_what_is_listed(store: Store) -> None:
    await keep_dead_letters(store, [changed(consumer="a"), changed(consumer="b"), changed(consumer="c")])
    replayed = changed(consumer="c")
    await mark_replayed(store, [replayed])
    assert await purge_dead_letters(store, consumer="a", event_id="absent") == 0
    assert await purge_dead_letters(store, consumer="a") == 1
    assert await count_dead_letters(store) == {"b": 1}
    assert await purge_dead_letters(store) == 1
    await keep_dead_letters(store, [replayed])
    assert await list_dead_letters(store) == []


async def test_a_reason_that_sql_cannot_hold_is_kept(store: Store) -> None:
    await keep_dead_letters(store, [changed(reason="a\0b\ud800c\U0001f600", event_type=None, body=b"\xff")])
    (row,) = await list_dead_letters(store, bodies=True)
    assert (row.reason, row.event_type, row.body_base64) == ("a\ufffdb\ufffdc\U0001f600", None, "/w==")


async def test_many_workers_keep_the_same_letters_at_once(store: Store) -> None:
    letters = [changed(event_id=str(number), last_failed_at_us=number) for number in range(20)]
    await asyncio.gather(*(keep_dead_letters(store, letters if n % 2 else letters[::-1]) for n in range(10)))
    assert sorted(await whole(store), key=lambda one: int(one.event_id)) == letters
