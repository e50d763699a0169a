from store import Store, register_consumers, registered_consumers, unregister_consumer


async def test_consumers_are_remembered_until_they_are_removed(store: Store) -> None:
    await register_consumers(store, {"b": ["OnlineRecordStarted"], "a": ("OnlineRecordFinished", "unrecognized")})
    await register_consumers(store, {"b": ["OnlineRecordStopped"]})
    await register_consumers(store, {})
    assert await registered_consumers(store) == {
        "a": ("OnlineRecordFinished", "unrecognized"),
        "b": ("OnlineRecordStopped",),
    }
    assert await unregister_consumer(store, "a")
    assert not await unregister_consumer(store, "a")
    assert await registered_consumers(store) == {"b": ("OnlineRecordStopped",)}
