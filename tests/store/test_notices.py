"""Notices: each once, with intent before and the result after."""

from store import (
    Notice,
    NoticeResult,
    Store,
    add_notices,
    begin_notices,
    claim_notices,
    end_notices,
    next_notice_in_s,
    postpone_notices,
    prune_notices,
)


def notice(notice_id: str, *, channel: str = "c", expires_after_s: float = 1000, after_s: float = 0) -> Notice:
    return Notice(
        notice_id=notice_id,
        channel=channel,
        rule="long_pause",
        severity="warning",
        sdk_app_id=1,
        task_id="t",
        data={"text": "a\0b", "list": ["\ud800", 1, None, {"c\0": True}]},
        after_s=after_s,
        expires_after_s=expires_after_s,
    )


async def test_a_notice_is_added_once(store: Store) -> None:
    assert await add_notices(store, [notice("a"), notice("b"), notice("a")]) == 2
    assert await add_notices(store, [notice("a", expires_after_s=5), notice("c")]) == 1
    assert await add_notices(store, []) == 0
    claimed = await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=9)
    assert [one.notice_id for one in claimed] == ["a", "b", "c"]


async def test_a_thousand_are_added_at_once(store: Store) -> None:
    assert await add_notices(store, [notice(str(number)) for number in range(1001)]) == 1001


async def test_a_channel_gets_its_own_with_their_data_as_far_as_sql_can_hold_it(store: Store) -> None:
    await add_notices(store, [notice("a"), notice("b", channel="d"), notice("c", after_s=50)])
    (one,) = await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=9)
    assert (one.notice_id, one.channel, one.rule, one.severity) == ("a", "c", "long_pause", "warning")
    assert (one.sdk_app_id, one.task_id, one.attempts, one.begun_at_us, one.is_past) == (1, "t", 1, None, False)
    assert one.data == {"text": "a\ufffdb", "list": ["\ufffd", 1, None, {"c\ufffd": True}]}
    assert 49 < (await next_notice_in_s(store, "c") or 0) <= 60
    assert await next_notice_in_s(store, "d") == 0
    assert await next_notice_in_s(store, "e") is None


async def test_a_notice_whose_time_is_past_says_so(store: Store) -> None:
    await add_notices(store, [notice("a", expires_after_s=-1), notice("b")])
    claimed = await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=9)
    assert [(one.notice_id, one.is_past) for one in claimed] == [("a", True), ("b", False)]


async def test_whoever_takes_over_sees_that_sending_had_begun(store: Store) -> None:
    await add_notices(store, [notice("a"), notice("b")])
    await claim_notices(store, channel="c", lease_holder="dies", lease_s=0, limit=9)
    assert await begin_notices(store, ["a", "another's"], lease_holder="dies") == {"a"}
    claimed = await claim_notices(store, channel="c", lease_holder="next", lease_s=60, limit=9)
    assert [one.begun_at_us is not None for one in claimed] == [True, False]
    assert await begin_notices(store, ["a", "b"], lease_holder="dies") == frozenset()


async def test_what_ended_is_told_no_more_and_what_failed_is_told_later(store: Store) -> None:
    await add_notices(store, [notice(name) for name in "abc"])
    await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=9)
    await begin_notices(store, ["a", "b"], lease_holder="h")
    ended = await end_notices(store, ["a", "x"], lease_holder="h", result=NoticeResult.SENT, detail="ok\0")
    assert ended == {"a"}
    assert await postpone_notices(store, ["b"], lease_holder="h", after_s=0, detail="45009") == {"b"}
    assert await end_notices(store, ["b"], lease_holder="h", result=NoticeResult.SENT) == frozenset()
    (again,) = await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=9)
    assert (again.notice_id, again.attempts, again.begun_at_us) == ("b", 2, None)


async def test_only_what_ended_long_ago_is_pruned(store: Store) -> None:
    await add_notices(store, [notice("a"), notice("b")])
    await claim_notices(store, channel="c", lease_holder="h", lease_s=60, limit=1)
    await end_notices(store, ["a"], lease_holder="h", result=NoticeResult.REFUSED)
    assert await prune_notices(store, older_than_s=60) == 0
    assert await prune_notices(store, older_than_s=-1) == 1
    assert await add_notices(store, [notice("a"), notice("b")]) == 1
