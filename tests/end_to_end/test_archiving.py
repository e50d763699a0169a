"""`tiw up` and `tiw archive run` as processes: from the vendor's callbacks to files in a folder, and every command."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from simulator import ClassKind, FileFailure, SimulatedClass, VendorFiles, make_class, render
from tests.end_to_end.deployment import Deployment, distributed, embedded
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, send
from tests.reconcile.serving import in_thread
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

KINDS = (ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS)


@pytest.fixture
def vendor_files() -> Iterator[VendorFiles]:
    with in_thread(VendorFiles(shrink=1000)) as files:
        yield files


def classes_that_ended(vendor_files: VendorFiles) -> list[SimulatedClass]:
    classes = [
        make_class(
            kind,
            Random(number),
            sdk_app_id=APP,
            room_id=880_000 + number,
            started_at=int(time.time()) - 7200,
            length_s=1800,
            bucket=vendor_files.bucket,
        )
        for number, kind in enumerate(KINDS)
    ]
    vendor_files.add(classes)
    return classes


def callbacks_of(cls: SimulatedClass) -> list[dict[str, object]]:
    return [json.loads(render(one)) for one in cls.callbacks]


@pytest.fixture(params=["embedded", "distributed"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path, vendor_files: VendorFiles) -> Iterator[Deployment]:
    with ExitStack() as stack:
        if request.param == "embedded":
            made = stack.enter_context(embedded(tmp_path / "deployment"))
        else:
            servers: tuple[RabbitMQServer, PostgresServer] = (
                request.getfixturevalue("rabbitmq"),
                request.getfixturevalue("postgres"),
            )
            made = stack.enter_context(distributed(tmp_path / "deployment", *servers))
        made.settings |= {
            "TIW_ARCHIVE": str(tmp_path / "classes"),
            "TIW_ARCHIVE_HOSTS": vendor_files.url.removeprefix("http://"),
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
            "TIW_ARCHIVE_MIN_FREE_BYTES": "0",
        }
        made.install("archived_too")
        yield made


def states(deployment: Deployment) -> set[str]:
    return {file["state"] for file in deployment.run("archive", "list", "--json").json}


def test_files_come_into_the_folder_consumers_hear_of_it_and_every_command_tells_the_truth(
    deployment: Deployment, vendor_files: VendorFiles, tmp_path: Path
) -> None:
    classes = classes_that_ended(vendor_files)
    # The first tries meet what a first try may meet.
    for failure in (FileFailure.BUSY, FileFailure.CUT_OFF, FileFailure.NOT_FOUND):
        vendor_files.faults.fail_next(failure)
    deployment.start()
    if not deployment.is_embedded:
        deployment.work("archived_too")
        deployment.program("archive", "run").wait_logged("archiving_started")
    send(deployment.address, *(callback for cls in classes for callback in callbacks_of(cls)))
    tasks = sorted(cls.task_id for cls in classes)
    eventually(lambda: sorted({*deployment.told("is_safe")}) == tasks)
    assert states(deployment) == {"archived"}

    # What people see.
    for task_id in tasks:
        shown = deployment.run("recordings", "show", task_id, "--json").json
        for video in shown["videos"]:
            archive = video["archive"]
            assert archive["state"] == "archived"
            assert Path(archive["location"]).stat().st_size == video["video_size"]
            (told,) = {line["location"] for line in deployment.logged("is_safe", task_id=task_id)}
            assert archive["location"].startswith(told)
        assert "RecordingArchived" in {event["event_type"] for event in shown["events"]}
    doctor = {check["check"]: check for check in deployment.run("doctor", "--json").json}
    assert (doctor["archive target"]["ok"], doctor["archive staging"]["ok"], doctor["archive"]["ok"]) == (True,) * 3
    assert not list((deployment.data / "staging").glob("*.part"))

    # A flipped bit is found.
    verified = deployment.run("archive", "verify", "--json")
    assert (verified.code, verified.json["not_whole"]) == (0, [])
    damaged = next((tmp_path / "classes").rglob("1_*.mp4"))
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    verified = deployment.run("archive", "verify", "--json")
    not_whole = json.loads(verified.out)["not_whole"]
    assert (verified.code, [one["location"] for one in not_whole]) == (1, [str(damaged)])
    # And mended, while the vendor has it.
    again = deployment.run("archive", "fetch", damaged.parent.name.rpartition("_")[2], "--again", "--json")
    assert (again.code, again.json["missing"]) == (0, 0), again.err
    assert deployment.run("archive", "verify").code == 0

    # The rows are made again from the folder, and nothing of it is fetched for that.
    elsewhere = {"TIW_DATA_DIR": str(tmp_path / "elsewhere"), "TIW_ARCHIVE": str(tmp_path / "copy")}
    elsewhere["TIW_DATABASE_URL"] = f"sqlite+aiosqlite:///{tmp_path}/elsewhere/store.db"
    shutil.copytree(tmp_path / "classes", tmp_path / "copy")
    assert deployment.run("migrate", **elsewhere).code == 0
    rebuilt = deployment.run("archive", "rebuild", "--json", **elsewhere)
    assert (rebuilt.code, rebuilt.json["problems"]) == (0, [])
    listed = deployment.run("archive", "list", "--json", **elsewhere).json
    assert len(listed) == sum(len(json.loads(path.read_bytes())["files"]) for path in tmp_path.glob("copy/*/*/*.json"))
    assert {file["state"] for file in listed} == {"archived"}
    assert deployment.run("archive", "verify", **elsewhere).code == 0


def test_a_forged_address_is_refused_with_the_reason_and_a_recording_is_fetched_by_hand_once_it_is_allowed(
    tmp_path: Path, vendor_files: VendorFiles
) -> None:
    (cls, _) = classes_that_ended(vendor_files)
    with embedded(tmp_path / "deployment") as deployment:
        deployment.settings |= {"TIW_ARCHIVE": str(tmp_path / "classes"), "TIW_ARCHIVE_MIN_FREE_BYTES": "0"}
        program = deployment.up()
        send(deployment.address, *callbacks_of(cls))
        eventually(lambda: states(deployment) == {"refused"})
        refused = deployment.run("archive", "list", "--state", "refused")
        assert "127.0.0.1" in refused.out
        assert deployment.run("doctor").code == 1
        assert not vendor_files.requests
        fetched = deployment.run("archive", "fetch", cls.task_id, "--json")
        assert (fetched.code, json.loads(fetched.out)["archived"]) == (1, 0)
        program.stop(within_s=35.0)
        allowed = {
            "TIW_ARCHIVE_HOSTS": vendor_files.url.removeprefix("http://"),
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
        }
        # Nothing runs: the command does it itself.
        fetched = deployment.run("archive", "fetch", cls.task_id, **allowed)
        assert fetched.code == 0, fetched.err
        assert states(deployment) == {"archived"}
        # All of it: nobody else writes what describes the files.
        (page,) = tmp_path.glob("classes/*/*/index.html")
        assert json.loads((page.parent / "manifest.json").read_bytes())["archived_at"] is not None
        # On a terminal it shows bars.
        fetched = deployment.run("archive", "fetch", cls.task_id, "--again", FORCE_COLOR="1", **allowed)
        assert (fetched.code, "1_" in fetched.err, "Traceback" in fetched.err) == (0, True, False), fetched.err


def test_what_cannot_be_read_now_is_not_called_damaged(tmp_path: Path, vendor_files: VendorFiles) -> None:
    (cls, _) = classes_that_ended(vendor_files)
    with embedded(tmp_path / "deployment") as deployment:
        deployment.settings |= {
            "TIW_ARCHIVE": str(tmp_path / "classes"),
            "TIW_ARCHIVE_HOSTS": vendor_files.url.removeprefix("http://"),
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
            "TIW_ARCHIVE_MIN_FREE_BYTES": "0",
        }
        deployment.up()
        send(deployment.address, *callbacks_of(cls))
        eventually(lambda: states(deployment) == {"archived"})
        eventually(lambda: list(tmp_path.glob("classes/*/*/manifest.json")))
        # A recording that nobody knows is not whole.
        unknown = deployment.run("archive", "verify", "nobody")
        assert (unknown.code, unknown.err.startswith("tiw: no file of 'nobody' is archived")) == (1, True)
        # Where TIW_ARCHIVE points to another folder, it is said where the files are.
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / ".tiw-archive").touch()
        other = {"TIW_ARCHIVE": str(tmp_path / "other")}
        assert "--again" not in deployment.run("archive", "verify", **other).out
        moved = json.loads(deployment.run("archive", "verify", "--json", **other).out)["not_whole"]
        assert all(one["detail"].startswith(f"it was archived as {tmp_path / 'classes'}") for one in moved)
        assert len(moved) == len(vendor_files.requests)
        # A share that is not mounted is one sentence, and no list of damages.
        (tmp_path / "classes").rename(tmp_path / "away")
        (tmp_path / "classes").mkdir()
        away = deployment.run("archive", "verify")
        assert (away.code, away.out, away.err.count("\n")) == (1, "", 1)
        assert "mount what belongs there" in away.err


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    with embedded(tmp_path / "deployment") as deployment:
        deployment.up()
        for arguments in (("fetch", "nobody"), ("verify",), ("rebuild",)):
            ended = deployment.run("archive", *arguments)
            assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
            assert "TIW_ARCHIVE" in ended.err
        assert "TIW_ARCHIVE is not set" in deployment.run("archive", "list").out
        there = {"TIW_ARCHIVE": str(tmp_path / "classes")}
        ended = deployment.run("archive", "fetch", "nobody", **there)
        assert (ended.code, "no recording 'nobody' is known" in ended.err) == (1, True)
        assert deployment.run("archive", "retry", **there).out == "Nothing is to be tried again.\n"
