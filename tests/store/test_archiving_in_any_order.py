"""Whatever workers do in whatever order: each file is held by one at a time, and is archived once and for all."""

import itertools
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from store import (
    ArchiveFile,
    ArchivePlan,
    FileKey,
    PlannedFile,
    Store,
    archived_files,
    archived_recordings,
    claim_files,
    claim_manifests,
    extend_leases,
    finish_file,
    finish_manifest,
    note_file,
    plan_archive,
    postpone_file,
    retry_files,
)

#: Two workers share a staging folder.
WORKERS = {"a": "one", "b": "one", "c": "two"}
LEASE_S = 100.0

_example = itertools.count()


class Model:
    """What the workers were told, and so believe."""

    def __init__(self, store: Store, random: Any) -> None:
        self.store = store
        self.random = random
        self.app = next(_example)
        #: Whose each file is, as far as anybody was told last; it may have run out.
        self.held: dict[FileKey, str] = {}
        #: What each worker believes to have.
        self.believed: dict[tuple[str, FileKey], ArchiveFile] = {}
        self.archived: set[FileKey] = set()
        self.planned: set[FileKey] = set()

    async def plan(self) -> None:
        numbers = self.random.sample(range(1, 5), self.random.randint(0, 4))
        task_id = self.random.choice("tu")
        files = tuple(
            PlannedFile(
                file_key=f"k{number}",
                number=number,
                name=f"{number}.mp4",
                url=f"https://example.com/{self.random.randint(1, 3)}",
                address_from=self.random.choice(("vendor", "callback")),
                deleted_at_us=time.time_ns() // 1000 + self.random.randint(-5, 5) * 1_000_000,
            )
            for number in numbers
        )
        plan = ArchivePlan(sdk_app_id=self.app, task_id=task_id, folder=task_id, active_at_us=1, files=files)
        for _ in range(self.random.randint(1, 2)):
            assert await plan_archive(self.store, [plan]) == {(self.app, task_id)}
        self.planned |= {(self.app, task_id, file.file_key) for file in files}

    async def claim(self) -> None:
        worker = self.random.choice([*WORKERS])
        can_fetch, can_place = self.random.choice(((True, True), (True, False), (False, True)))
        claimed = [
            file
            for task_id in "tu"
            for file in await claim_files(
                self.store,
                lease_holder=worker,
                lease_s=LEASE_S,
                limit=self.random.randint(1, 4),
                staged_on=WORKERS[worker],
                can_fetch=can_fetch,
                can_place=can_place,
                recording=(self.app, task_id),
            )
        ]
        for file in claimed:
            assert file.key in self.planned
            assert file.key not in self.archived
            assert file.key not in self.held, "it had a holder whose lease had not run out"
            assert file.staged_on in {None, WORKERS[worker]}
            assert can_place if file.is_staged else can_fetch
            if file.staged_on is None:
                assert (file.fetched_bytes, file.etag, file.sha256) == (0, None, None)
            self.held[file.key] = worker
            self.believed[worker, file.key] = file

    async def work(self) -> None:
        if not self.believed:
            return
        worker, key = self.random.choice(sorted(self.believed))
        row = await self.row(key)
        is_its_own = row.state == "due" and row.lease_holder == worker
        way = self.random.choice(("note", "extend", "postpone", "finish"))
        if way == "note":
            values: dict[str, Any] = {"staged_on": WORKERS[worker], "fetched_bytes": 5, "etag": "e", "sha256": "s"}
            is_staged = self.random.choice((True, False))
            done = await note_file(self.store, key, lease_holder=worker, is_staged=is_staged, **values)
            assert done == is_its_own
            return
        if way == "extend":
            kept = await extend_leases(self.store, archived_files, [key], lease_holder=worker, lease_s=LEASE_S)
            assert kept == ({key} if is_its_own else frozenset())
            if is_its_own:
                self.held[key] = worker
            return
        del self.believed[worker, key]
        if way == "postpone":
            done = await postpone_file(
                self.store, key, lease_holder=worker, after_s=0, reason="r", failing_at="fetching"
            )
        else:
            outcome = self.random.choice(("archived", "archived", "lost", "refused"))
            done = await finish_file(self.store, key, lease_holder=worker, outcome=outcome)
            if done and outcome == "archived":
                self.archived.add(key)
        assert done == is_its_own
        if done:
            assert self.held.pop(key, worker) == worker

    async def let_leases_run_out(self, by_s: int | None = None) -> None:
        by_us = (by_s or self.random.choice((101, 701))) * 1_000_000
        columns = archived_files.c.due_at_us, archived_files.c.leased_until_us
        async with self.store.writing() as connection:
            mine = update(archived_files).where(archived_files.c.sdk_app_id == self.app)
            await connection.execute(mine.values({column.name: column - by_us for column in columns}))
        self.held.clear()

    async def retry(self) -> None:
        await retry_files(self.store, app=self.app, outcomes=("lost", "refused"))

    async def write_manifests(self) -> None:
        for task_id in "tu":
            recording = (self.app, task_id)
            for work in await claim_manifests(
                self.store, lease_holder="m", lease_s=LEASE_S, limit=9, recording=recording
            ):
                assert {file.key for file in work.files} == {key for key in self.planned if key[:2] == recording}
                assert {file.key for file in work.files if file.outcome == "archived"} == {
                    key for key in self.archived if key[:2] == recording
                }
                if self.random.choice((True, False)):
                    await self.plan()
                await finish_manifest(self.store, work.key, lease_holder="m", location="/a", archived_at_us=1)

    async def row(self, key: FileKey) -> Any:
        columns = archived_files.c
        query = select(archived_files).where(
            columns.sdk_app_id == key[0], columns.task_id == key[1], columns.file_key == key[2]
        )
        async with self.store.reading() as connection:
            return (await connection.execute(query)).one()

    async def check(self) -> None:
        """Nothing is archived that nobody finished, and a recording is whole only while all its files are."""
        columns = archived_files.c
        rows = select(columns.task_id, columns.file_key, columns.outcome, columns.state).where(
            columns.sdk_app_id == self.app
        )
        recordings = select(archived_recordings).where(archived_recordings.c.sdk_app_id == self.app)
        async with self.store.reading() as connection:
            files = (await connection.execute(rows)).all()
            whole = (await connection.execute(recordings)).all()
        assert {(self.app, file.task_id, file.file_key) for file in files} == self.planned
        assert {(self.app, f.task_id, f.file_key) for f in files if f.outcome == "archived"} == self.archived
        assert all((file.state == "done") == (file.outcome is not None) for file in files)
        for one in whole:
            own = [file for file in files if file.task_id == one.task_id]
            if one.archived_at_us is not None:
                assert all(file.outcome == "archived" for file in own)
            if one.state == "done" and one.manifest_at_us is None:
                assert any(file.state == "due" for file in own), "nobody will write its manifest"


# Not shrunk: a shorter random sequence does something else altogether.
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(random=st.randoms(use_true_random=False))
async def test_each_file_has_one_holder_and_is_archived_once(store: Store, random: Any) -> None:
    model = Model(store, random)
    ways = [model.plan, model.claim, model.claim, model.work, model.work, model.work, model.let_leases_run_out]
    await model.plan()
    for _ in range(random.randint(1, 25)):
        await random.choice([*ways, model.retry, model.write_manifests])()
    await model.check()
    # In the end everything is done, however it began.
    for _ in range(2):
        await model.let_leases_run_out(701)
        for task_id in "tu":
            for file in await claim_files(
                store,
                lease_holder="last",
                lease_s=LEASE_S,
                limit=9,
                staged_on="three",
                can_fetch=True,
                can_place=True,
                recording=(model.app, task_id),
            ):
                assert file.key not in model.archived
                assert await finish_file(store, file.key, lease_holder="last", outcome="archived")
                model.archived.add(file.key)
    await model.check()
    async with store.reading() as connection:
        due = select(func.count()).where(archived_files.c.sdk_app_id == model.app, archived_files.c.state == "due")
        assert (await connection.execute(due)).scalar_one() == 0
