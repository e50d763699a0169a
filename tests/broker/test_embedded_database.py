"""Files that cannot be used, and what a person is told about them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker import BrokerError, EmbeddedTransport, NotPublishedError
from broker.embedded import database as folders
from broker.embedded.database import SCHEMA_VERSION, file_system
from tests.broker.consumers import ARCHIVE, CONSUMERS
from tests.broker.embedded_child import message
from tests.broker.inbox import AckingInbox, Inbox, eventually


async def _refusal(folder: Path) -> str:
    with pytest.raises(BrokerError) as caught:
        async with EmbeddedTransport(folder):
            pytest.fail("it was opened")
    assert not _owners(folder)
    return str(caught.value)


def _owners(folder: Path) -> list[Path]:
    return list(folder.glob("owner-*"))


async def _fill(folder: Path, events: int) -> None:
    async with EmbeddedTransport(folder, consumers=CONSUMERS) as transport:
        for number in range(events):
            await transport.publish(message(f"{number}", body=bytes(2000)))


async def test_file_and_folder_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "var"
    async with EmbeddedTransport(folder):
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {"transport.db", "transport.db-wal"} < set(modes)
    assert set(modes.values()) == {0o600}


async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "transport.db"
    path.write_bytes(b"something else entirely" * 500)
    refusal = await _refusal(tmp_path)
    assert "move it" in refusal
    assert str(path) in refusal
    assert path.read_bytes().startswith(b"something else")


async def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    await _fill(tmp_path, 30)
    path = tmp_path / "transport.db"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "damaged" in await _refusal(tmp_path)


async def test_a_file_with_a_page_overwritten_is_refused(tmp_path: Path) -> None:
    await _fill(tmp_path, 30)
    path = tmp_path / "transport.db"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert "damaged" in await _refusal(tmp_path)


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await _fill(tmp_path, 1)
    with closing(sqlite3.connect(tmp_path / "transport.db")) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert "newer version" in await _refusal(tmp_path)


async def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "transport.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    before = path.read_bytes()
    assert "not the file of a transport" in await _refusal(tmp_path)
    assert path.read_bytes() == before


async def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "var"
    path.write_text("")
    assert "cannot make the folder" in await _refusal(path)


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/share {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(folders, "_MOUNTS", mounts)
    folder = tmp_path / "var"
    assert "network file system (nfs4)" in await _refusal(folder)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/data", "xfs"), ("/data/var", "xfs"), ("/data/my share/var", "cifs"), ("/database", "ext4"), ("/", "ext4")],
)
def test_the_nearest_mount_says_what_a_folder_is_on(folder: str, kind: str) -> None:
    mounts = "/dev/a / ext4 rw 0 0\n/dev/b /data ext4 rw 0 0\n//s/m /data/my\\040share cifs rw 0 0\n"
    mounts += "/dev/c /data xfs rw 0 0\n"
    assert file_system(Path(folder), mounts) == kind


async def test_events_are_refused_once_the_file_was_deleted(tmp_path: Path) -> None:
    async with EmbeddedTransport(tmp_path) as transport:
        (tmp_path / "transport.db").unlink()
        with pytest.raises(NotPublishedError, match="moved or deleted"):
            await transport.publish(message("a"))


async def test_an_entry_that_is_no_message_is_kept_as_unrecognized(tmp_path: Path) -> None:
    inbox = AckingInbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as connection:
            connection.execute(
                "INSERT INTO messages (queue, visible_at_us, message) VALUES ('tiw.archive', 0, x'c1ff')"
            )
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
            await inbox.wait(1)
    (kept,) = inbox.messages
    assert kept.body == b"\xc1\xff"
    assert kept.routing_key == "unrecognized"
    assert len(kept.event_id) == 32


async def test_the_file_shrinks_when_its_events_are_handled(tmp_path: Path) -> None:
    inbox = AckingInbox()
    path = tmp_path / "transport.db"
    async with EmbeddedTransport(tmp_path, consumers=(ARCHIVE,)) as transport:
        for _ in range(4):
            await transport.send("archive", message("large", body=bytes(4_000_000)))
        async with transport.subscribe(ARCHIVE, inbox, prefetch=4):

            async def has_shrunk() -> bool:
                with closing(sqlite3.connect(path)) as connection:
                    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
                return pages < 2500

            await eventually(has_shrunk)
    assert path.stat().st_size < 2500 * 4096
    assert len(inbox) == 4


async def test_a_file_can_be_read_beside_a_running_process(tmp_path: Path) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as up, up.subscribe(ARCHIVE, inbox, prefetch=1):
        await up.publish(message("a"))
        await up.publish(message("b"))
        await inbox.wait(1)
        async with EmbeddedTransport(tmp_path) as tool:
            (state,) = await tool.inspect(["archive"])
            assert (state.ready, state.unacked, state.connected) == (1, 1, 1)
            assert not tool._watch.held
        assert await inbox.deliveries[0].ack()
        await inbox.wait(2)
