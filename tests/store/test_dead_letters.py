import asyncio
import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store import (
    DeadLetter,
    Store,
    count_dead_letters,
    keep_dead_letters,
    list_dead_letters,
    mark_replayed,
    pages_of_dead_letters,
    pattern_of,
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

    assert await chosen(reason="KeyError: 'a'") == ["0"]
    assert await chosen(reason="KeyError") == []
    assert await chosen(reason="%") == ["3"]
    assert await chosen(reason="x" * 200) == ["4"]
    assert await chosen(reason="first") == ["5"]
    assert await chosen(reason="") == []
    assert await chosen(reason="\0\ud800") == []
    assert await chosen(consumer="\0") == []
    assert await chosen(until_us=11) == ["0", "1"]
    assert [row.event_id for row in await list_dead_letters(store, reason="_")] == ["6"]
    assert await purge_dead_letters(store, until_us=15, reason="KeyError: 'a'") == 1
    assert await chosen() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("reason", "pattern"),
    [
        ("KeyError: 'TASK_abc'", "KeyError: '…'"),
        ('KeyError: "it\'s"', 'KeyError: "…"'),
        ("the handler took 3.21 s", "the handler took … s"),
        ("no answer within 30 s", "no answer within … s"),
        ("it took 350ms for 1048576 bytes", "it took … for … bytes"),
        ("recording 4f0c9be2aa of room 880528 is gone", "recording … of room … is gone"),
        ("task -eM7jHGS-x--9_ is gone", "task … is gone"),
        (
            "ClientConnectorError: Cannot connect to host 10.0.0.7:8443 ssl:default",
            "ClientConnectorError: Cannot connect to host …:… ssl:default",
        ),
        ("OSError: [Errno 28] No space left: '/srv/classes/7.mp4'", "OSError: [Errno 28] No space left: '…'"),
        ("the endpoint answered 503", "the endpoint answered 503"),
        ("S3Error: bucket b2 is away", "S3Error: bucket … is away"),
        ("can't open the school's share", "can't open the school's share"),
        ("房间880528的文件“公开课.mp4”不存在", "房间…的文件“…”不存在"),
        ("first line 12345\nsecond line", "first line …"),
        ("\nsecond line", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_of_a_reason_stays_what_letters_with_one_cause_have_in_common(reason: str, pattern: str) -> None:
    assert pattern_of(reason) == pattern


@given(st.text("aZ09 .-'\"`…:s\n“”é") | st.text())
@example("abc1'x'")
@example('" \'a"b\' "')
def test_the_pattern_of_a_pattern_is_itself(reason: str) -> None:
    assert pattern_of(pattern_of(reason)) == pattern_of(reason)


async def test_by_a_pattern_just_those_letters_are_chosen_that_have_it(store: Store) -> None:
    reasons = ["KeyError: 'a'", "KeyError: 'b'\nmore", "KeyError: '…'", "KeyError: 'a' and more", "x"]
    await keep_dead_letters(store, [changed(event_id=f"{at}", reason=reason) for at, reason in enumerate(reasons)])

    async def chosen(reason: str) -> list[str]:
        found = [one.event_id async for page in pages_of_dead_letters(store, reason=reason) for one in page]
        assert sum((await count_dead_letters(store, reason=reason)).values()) == len(found)
        assert {row.event_id for row in await list_dead_letters(store, reason=reason)} == {*found}
        return found

    assert await chosen("KeyError: '…'") == ["0", "1", "2"]
    assert await chosen("KeyError: 'a'") == ["0"], "a reason is no more than itself"
    assert await chosen("KeyError: 'c'") == []
    assert await purge_dead_letters(store, reason="KeyError: '…'") == 3
    assert [letter.event_id for letter in await whole(store)] == ["3", "4"]


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
