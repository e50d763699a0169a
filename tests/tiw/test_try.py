"""`tiw try`: the first thing that the author of a consumer does."""

from pathlib import Path

import pytest

from tests.commands import Finished
from tests.end_to_end.programs import run

CONSUMERS = """
from schemas import Event, OnlineRecordFinished, OnlineRecordStarted
from workers import Context, DeadLetter, Drop, Retry, consumer


@consumer
async def archive(event: OnlineRecordFinished, ctx: Context) -> None:
    assert b"Sign" not in ctx.body and ctx.store is not None
    ctx.log.info("archived", task_id=event.task_id, videos=len(event.video_infos))


@consumer(batch=10)
def everything(batch: list[tuple[Event, Context]]) -> None:
    pass


@consumer
async def fails(event: OnlineRecordStarted, ctx: Context) -> None:
    {then}
"""


VERIFIED = "@consumer(verified=True)\nasync def archive"


def attempt(tmp_path: Path, *arguments: str, then: str = "pass") -> Finished:
    file = tmp_path / "mine.py"
    file.write_text(CONSUMERS.format(then=then))
    return run({"TIW_LOG_FORMAT": "json", "TIW_DATA_DIR": str(tmp_path / "data")}, "try", str(file), *arguments)


def test_every_consumer_of_a_file_runs_on_a_sample_of_each_event_it_takes(tmp_path: Path) -> None:
    tried = attempt(tmp_path)
    assert tried.code == 0, tried.err
    lines = [line.split("  ")[:3] for line in tried.out.splitlines()]
    kinds = ["Started", "Stopped", "PausedForLongTime", "LongPauseForceStopped", "Finished"]
    assert ["archive", "OnlineRecordFinished", "handled"] in lines
    assert ["fails", "OnlineRecordStarted", "handled"] in lines
    assert len([line for line in lines if line[0] == "everything"]) == len(kinds) + 1
    assert '"event": "archived"' in tried.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("then", "words", "code"),
    [
        ("raise Retry(after_s=60, reason='busy')", "to be retried after 60 s or later: busy", 1),
        ("raise DeadLetter('no such room')", "dead letter: no such room", 1),
        ("raise Drop('a rehearsal')", "dropped: a rehearsal", 0),
        ("1 / 0", "to be retried: ZeroDivisionError: division by zero", 1),
        ("raise SystemExit(3)", "to be retried: the handler would have ended the program: SystemExit: 3", 1),
    ],
)
def test_an_outcome_is_told_as_it_is(tmp_path: Path, then: str, words: str, code: int) -> None:
    tried = attempt(tmp_path, "--consumer", "fails", "--event", "started", then=then)
    assert tried.code == code, tried.err
    assert tried.out.startswith(f"fails  OnlineRecordStarted  {words}  in ")


def test_a_callback_in_a_file_is_what_the_consumer_gets_without_its_sign(tmp_path: Path) -> None:
    sample = Path(__file__).parents[1] / "samples" / "finished.json"
    tried = attempt(tmp_path, "--consumer", "archive", "--body", str(sample))
    assert tried.code == 0, tried.err
    assert tried.out.startswith("archive  OnlineRecordFinished  handled")


def test_what_only_the_vendor_could_confirm_is_taken_as_confirmed_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CONSUMERS.format(then="pass").replace("@consumer\nasync def archive", VERIFIED))
    tried = run({"TIW_LOG_FORMAT": "json"}, "try", str(file))
    assert tried.code == 0, tried.err
    said = [line for line in tried.out.splitlines() if line.endswith("(taken as confirmed by the vendor)")]
    assert [line.split("  ")[:3] for line in said] == [["archive", "OnlineRecordFinished", "handled"]]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--consumer", "absent"], 2, "defines no consumer 'absent'"),
        (["--event", "Sunrise"], 2, "--event Sunrise is none of OnlineRecordStarted"),
        (["--event", "Online"], 2, "--event Online is none of"),
        (["--body", "/nowhere.json"], 1, "/nowhere.json cannot be read: No such file or directory"),
        (["--consumer", "archive", "--event", "started"], 1, "nothing was tried"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    tried = attempt(tmp_path, *arguments)
    assert (tried.code, tried.out) == (code, "")
    assert tried.err.startswith("tiw: ")
    assert words in tried.err
    assert tried.err.count("\n") == 1


def test_a_file_that_cannot_be_loaded_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("\nimport not_here\n")
    tried = run({}, "try", str(file))
    assert tried.code == 2
    assert tried.err == (
        f"tiw: {file}:2: there is no module 'not_here': correct the name, or put its package into"
        " plugins/requirements.txt, then start ./dev again, or build the image again\n"
    )
