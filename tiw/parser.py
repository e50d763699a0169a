"""The parser of the command line: which commands and options there are, and which function runs each.

`--help` and mistakes are answered with the parser alone: everything else is imported when a command runs.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn

from tiw import __version__

#: What a test can tell: `workers.TEST_EVENT_TYPES`, without importing it.
TEST_KINDS = ("started", "long_pause_warning", "long_pause_force_stopped", "stopped", "finished", "failed", "unknown")


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, with exit code 2, and takes options by their whole name only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tiw: {message} (see `{self.prog} --help`)\n")


@cache
def build_parser() -> Parser:
    """Return the parser of all commands, made once; `runs` says which function runs."""
    parser = Parser(
        prog="tiw", description="Receives the recording callbacks of Tencent Interactive Whiteboard and loses none."
    )
    parser.add_argument("--version", action="version", version=f"tiw {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_processes(commands)
    _add_simulator(commands)
    _add_recordings(commands)
    _add_events(commands)
    _add_dead_letters(commands)
    _add_spool(commands)
    _add_consumers(commands)
    _add_notify(commands)
    _add_forget(commands)
    _add_rejected(commands)
    _add_changes(commands)
    _add_keys(commands)
    _add_vendor(commands)
    _add_reconcile(commands)
    _add_archive(commands)
    _add_inspection(commands)
    return parser


def _command(commands: Any, name: str, runs: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(runs=runs)
    return parser


def _group(commands: Any, name: str, summary: str) -> Any:
    return commands.add_parser(name, help=summary, description=summary).add_subparsers(metavar="COMMAND", required=True)


def _add_processes(commands: Any) -> None:
    _command(commands, "up", "up:up", "Run the whole pipeline in one process, until Ctrl-C.")
    ingest = _command(commands, "ingest", "ingest:ingest", "Run an ingest node.")
    ingest.add_argument("--processes", type=_positive, default=1, metavar="N", help="share the port (default: 1)")
    ingest.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    ingest.add_argument("--socket", type=_natural, help=argparse.SUPPRESS)
    work = _command(commands, "work", "work:work", "Run consumers.")
    work.add_argument("consumers", nargs="*", metavar="CONSUMER", help="which ones (none: all)")
    work.add_argument("--custom", action="store_true", help="all of TIW_CONSUMERS and no built-in ones; none: idle")
    work.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    work.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    work.add_argument("--reload", action="store_true", help="restart your consumers when their files change")
    work.add_argument("--source", help=argparse.SUPPRESS)
    trying = _command(
        commands, "try", "try_consumer:try_consumer", "Run a consumer of yours on events, with no broker."
    )
    trying.add_argument("file", metavar="FILE", help="a .py file or module with consumers")
    trying.add_argument("--consumer", metavar="NAME", help="which one (default: all)")
    trying.add_argument("--event", metavar="TYPE", help="of one kind, such as Finished (default: a sample of each)")
    trying.add_argument("--body", metavar="FILE", help="a callback of yours instead of the samples; -: standard input")
    trying.add_argument("--attempt", type=_positive, default=1, metavar="N", help="the number of the attempt")
    console = _command(commands, "console", "console:console", "Show what happened to classes, in a browser.")
    console.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    console.add_argument("--listen-fd", type=_natural, help=argparse.SUPPRESS)
    _command(commands, "migrate", "migrate:migrate", "Bring the database's schema up to date.")


def _add_simulator(commands: Any) -> None:
    demo = _command(commands, "demo", "demo:demo", "Play classes through the whole pipeline and account for each.")
    demo.add_argument("--classes", type=_positive, default=12, metavar="N")
    demo.add_argument("--seed", type=int, default=1, metavar="S")
    simulate = _command(commands, "simulate", "simulate:simulate", "Send callbacks as the vendor does.")
    simulate.add_argument("--url", required=True, metavar="U", help="the callback address")
    simulate.add_argument("--app", required=True, type=_natural, metavar="ID", help="SdkAppId")
    simulate.add_argument("--key", metavar="K", help="callback key (default: the first of this app's in the settings)")
    simulate.add_argument("--unsigned", action="store_true", help="send no Sign, as if no key were set")
    simulate.add_argument("--classes", type=_positive, default=10, metavar="N")
    simulate.add_argument("--rate", type=_rate, metavar="R", help="callbacks a second (default: as fast as answered)")
    simulate.add_argument("--concurrency", type=_positive, default=16, metavar="N")
    simulate.add_argument("--seed", type=int, metavar="S", help="to send the same again (default: a new one, printed)")
    for name, share, what in (
        ("--duplicates", 0.1, "sent once more"),
        ("--disorder", 0.2, "held back until later ones have gone"),
        ("--drop", 0.0, "lost on their way"),
    ):
        simulate.add_argument(
            name, type=_share, default=share, metavar="SHARE", help=f"callbacks {what}: 0 to 1 (default: {share:g})"
        )
    simulate.add_argument(
        "--speed",
        type=_rate,
        metavar="X",
        help="hold the classes within a day, X times as fast as real (with --vendor-api by default 1440: a minute)",
    )
    simulate.add_argument(
        "--vendor-api",
        metavar="HOST:PORT",
        help="answer there as the vendor's API does for these classes, until Ctrl-C: for tiw reconcile",
    )
    simulate.add_argument("--vendor-site", choices=["china", "international"], default="china", help="of the API")
    _json(simulate)
    test = _command(commands, "send-test", "send_test:send_test", "Send a callback that is marked as a test.")
    test.add_argument("kind", choices=TEST_KINDS, metavar="KIND", help=f"what it tells: {', '.join(TEST_KINDS)}")
    test.add_argument("--app", type=_natural, metavar="ID", help="SdkAppId (default: one that is known)")
    test.add_argument("--room", type=_natural, metavar="N", help="RoomId (default: 880528)")
    test.add_argument("--task", metavar="ID", help="go on with the class of a test before, by its TaskId")
    test.add_argument("--consumer", metavar="NAME", help="to this one alone (default: to all that take it)")
    _json(test)


def _add_recordings(commands: Any) -> None:
    recordings = _group(commands, "recordings", "What is known of each recording.")
    listing = _command(recordings, "list", "recordings:list_all", "List recordings, newest first.")
    statuses = ["RECORDING", "PAUSED", "STOPPED", "FINISHED", "FAILED"]
    listing.add_argument(
        "--status", type=str.upper, choices=statuses, help="of one status; failed: finished with an error"
    )
    listing.add_argument("--room", type=_natural, metavar="N", help="of one room")
    listing.add_argument("--teacher", metavar="ID", help="recorded by this user, or with a file of this user's stream")
    listing.add_argument("--task", metavar="ID", help="of one TaskId, or whose TaskId begins so: 'ID*'")
    for name, what in (
        ("--failed", "that failed"),
        ("--found-late", "of which an event was found by asking the vendor"),
        ("--contradicted", "that the vendor contradicts"),
        ("--not-archived", "with files that are to be archived and are not"),
    ):
        listing.add_argument(name, action="store_true", help=f"only those {what}")
    _until(listing)
    _selection(listing)
    show = _command(recordings, "show", "recordings:show", "Show one recording.")
    show.add_argument("task_id", metavar="TASK_ID")
    show.add_argument("--app", type=_natural, metavar="ID", help="SdkAppId, where several have this TaskId")
    _json(show)


def _add_events(commands: Any) -> None:
    events = _group(commands, "events", "The events that were kept.")
    listing = _command(events, "list", "events:list_all", "List events, newest first.")
    listing.add_argument("--unrecognized", action="store_true", help="only those nobody understood")
    listing.add_argument("--type", metavar="TYPE", help="of one kind, such as OnlineRecordFinished")
    listing.add_argument("--task", metavar="ID", help="of one TaskId")
    listing.add_argument("--source", metavar="S", help="from there: callback, reconcile, archive or test")
    listing.add_argument("--consumer", metavar="NAME", help="that this consumer gets")
    listing.add_argument("--bodies", action="store_true", help="with the callbacks' bodies")
    _until(listing)
    _selection(listing)
    show = _command(events, "show", "events:show", "Show an event with its body.")
    show.add_argument("event_id", metavar="EVENT_ID")
    _json(show)
    replay = _command(events, "replay", "events:replay", "Bring kept events to one consumer again.")
    replay.add_argument("--consumer", required=True, metavar="NAME")
    replay.add_argument("--since", metavar="T", help="received since: 2026-11-23, 2026-11-23T10:00Z, 90m, 12h, 3d")
    replay.add_argument("--task", metavar="ID", help="of one TaskId")
    replay.add_argument("--event-id", metavar="E", help="one event")
    replay.add_argument("--rate", type=_rate, default=200.0, metavar="R", help="events a second (default: 200)")
    replay.add_argument("--dry-run", action="store_true", help="only count")
    _json(replay)


def _add_dead_letters(commands: Any) -> None:
    letters = _group(commands, "dead-letters", "Events that consumers could not handle.")
    listing = _command(letters, "list", "dead_letters:list_all", "List dead letters, newest first.")
    _letters(listing)
    _replayed(listing)
    _selection(listing)
    show = _command(letters, "show", "dead_letters:show", "Show dead letters with their bodies.")
    _letters(show)
    _replayed(show)
    _json(show)
    for name, summary in (("replay", "Bring dead letters back to their consumers."), ("purge", "Delete dead letters.")):
        change = _command(letters, name, f"dead_letters:{name}", summary)
        _letters(change)
        change.add_argument("--dry-run", action="store_true", help="only say what would be done")
        _json(change)


def _add_spool(commands: Any) -> None:
    spool = _group(commands, "spool", "Callbacks that an ingest node keeps until the broker takes them.")
    listing = _command(spool, "list", "spool:list_all", "List the callbacks that wait, and those set aside.")
    listing.add_argument("--limit", type=_natural, default=1000, metavar="N", help="at most (default: 1000; 0: all)")
    _listing(listing)
    drain = _command(spool, "drain", "spool:drain", "Publish now what waits in files that no running node has.")
    drain.add_argument("--set-aside", action="store_true", help="also what the broker refused again and again")
    drain.add_argument("--dry-run", action="store_true", help="only count")
    _json(drain)
    _listing(_command(spool, "verify", "spool:verify", "Read every file of the spool and say what is damaged."))


def _add_consumers(commands: Any) -> None:
    group = _command(commands, "consumers", "consumers:list_all", "The consumers and their queues; alone: list.")
    _listing(group)
    group.set_defaults(name=None)
    consumers = group.add_subparsers(metavar="COMMAND")
    listing = _command(consumers, "list", "consumers:list_all", "List consumers, built-in and of users.")
    listing.add_argument("name", nargs="?", metavar="NAME", help="this one (default: all)")
    # Without a default of its own: it would undo a --json that stands before `list`.
    _listing(listing, default=argparse.SUPPRESS)
    remove = _command(
        consumers, "remove", "consumers:remove", "Delete the queues of a consumer that you no longer run."
    )
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--force", action="store_true", help="even if events wait in it: they are lost to it")


def _add_notify(commands: Any) -> None:
    notify = _group(commands, "notify", "Tell people what they should know, over the channels of TIW_NOTIFY.")
    _command(notify, "run", "notify:run", "Run what tells people, beside ingest nodes and workers.")
    test = _command(notify, "test", "notify:test", "Send one message over a channel, and show what it answers.")
    test.add_argument("channel", metavar="CHANNEL", help="its name: the kind, or what name= says")
    _json(test)
    listing = _command(notify, "list", "notify:list_all", "List notices and what became of them, newest first.")
    listing.add_argument("--channel", metavar="CHANNEL", help="of one channel")
    listing.add_argument("--since", metavar="T", help="2026-11-23, 2026-11-23T10:00Z, or an age: 90m, 12h, 3d")
    listing.add_argument("--limit", type=_natural, default=1000, metavar="N", help="at most (default: 1000; 0: all)")
    _listing(listing)


def _add_archive(commands: Any) -> None:
    archive = _group(commands, "archive", "Keep every file of every recording, in TIW_ARCHIVE.")
    _command(archive, "run", "archive:run", "Run what fetches and places files, beside ingest nodes and workers.")
    listing = _command(archive, "list", "archive:list_all", "List files, those of the recording that ended last first.")
    states = ["waiting", "fetching", "staged", "archived", "lost", "refused"]
    listing.add_argument("--state", choices=states, help="of one state (default: all)")
    listing.add_argument("--task", metavar="ID", help="of one TaskId")
    _selection(listing)
    fetch = _command(archive, "fetch", "archive:fetch", "Archive the files of one recording now, and show how it goes.")
    fetch.add_argument("task_id", metavar="TASK_ID")
    fetch.add_argument(
        "--again", action="store_true", help="also archived files that are not whole at the target any more"
    )
    retry = _command(archive, "retry", "archive:retry", "Have what is lost, refused or waiting tried again at once.")
    retry.add_argument("task_id", nargs="?", metavar="TASK_ID", help="of one recording (none: all)")
    verify = _command(archive, "verify", "archive:verify", "Read archived files, and say which are not what they were.")
    verify.add_argument("task_id", nargs="?", metavar="TASK_ID", help="of one recording (none: all)")
    rebuild = _command(archive, "rebuild", "archive:rebuild", "Make what the database knows from the manifests again.")
    for one in (fetch, retry, verify):
        one.add_argument("--app", type=_natural, metavar="ID", help="SdkAppId, where several have this TaskId")
    for one in (fetch, retry, verify, rebuild):
        _json(one)


def _add_forget(commands: Any) -> None:
    forget = _command(commands, "forget", "forget:forget", "Delete everything that the database knows of a recording.")
    forget.add_argument("--task", required=True, metavar="ID", help="its TaskId")
    forget.add_argument("--app", type=_natural, metavar="ID", help="SdkAppId, where several have this TaskId")
    forget.add_argument("--dry-run", action="store_true", help="only count")
    _json(forget)


def _add_rejected(commands: Any) -> None:
    rejected = _group(commands, "rejected", "Refused callbacks of the last 24 hours that other keys might let in.")
    listing = _command(rejected, "list", "rejected:list_all", "List them, newest first, without Sign and body.")
    listing.add_argument("--reason", metavar="R", help="refused for this reason, such as wrong_sign")
    _selection(listing)
    reverify = _command(
        rejected,
        "reverify",
        "rejected:reverify",
        "Let those in that the keys of now say were authentic at their arrival.",
    )
    reverify.add_argument("--dry-run", action="store_true", help="only say what would be done")
    _json(reverify)


def _add_changes(commands: Any) -> None:
    changes = _group(commands, "changes", "Who changed what in the console.")
    listing = _command(changes, "list", "changes:list_all", "List changes, newest first.")
    listing.add_argument("--limit", type=_natural, default=1000, metavar="N", help="at most (default: 1000; 0: all)")
    _listing(listing)


def _add_keys(commands: Any) -> None:
    keys = _group(commands, "keys", "The callback keys of each application.")
    show = _command(keys, "show", "keys:show", "Show them, for the owner of their file.")
    show.add_argument("--app", type=_natural, metavar="ID", help="of one SdkAppId")
    show.add_argument("--console", action="store_true", help="the token of the console and its login link instead")
    show.add_argument("--reveal", action="store_true", help="as they are, though this is no terminal")
    _json(show)
    add = _command(keys, "add", "keys:add", "Accept another key, too: a new one is made and printed.")
    add.add_argument("--app", type=_natural, required=True, metavar="ID", help="SdkAppId")
    add.add_argument("--stdin", action="store_true", help="read the key from standard input instead")
    _json(add)
    retire = _command(keys, "retire", "keys:retire", "Accept a key no more.")
    retire.add_argument("--app", type=_natural, required=True, metavar="ID", help="SdkAppId")
    retire.add_argument("--number", type=_positive, required=True, metavar="N", help="as `tiw keys show` counts")
    retire.add_argument("--force", action="store_true", help="even the last one of an application")
    _json(retire)


def _add_vendor(commands: Any) -> None:
    vendor = _group(commands, "vendor", "What the vendor has of an application, changed through its API.")
    address = _command(vendor, "set-callback", "vendor:set_callback", "Let it send recording callbacks to an address.")
    address.add_argument("url", metavar="URL", help="https://YOUR.HOST/callbacks/tiw/TOKEN")
    rotate = _command(
        vendor, "rotate-key", "vendor:rotate_key", "Give it a new callback key; run again later, retire the old one."
    )
    # A recording lasts a day at most, and no page says whether one that runs already is signed with a new key.
    rotate.add_argument(
        "--wait", type=_natural, default=86_400, metavar="S", help="how long both are accepted (default: 86400, a day)"
    )
    for change in (address, rotate):
        change.add_argument("--app", type=_natural, metavar="ID", help="SdkAppId, where there are keys of several")
        change.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _add_reconcile(commands: Any) -> None:
    group = _command(
        commands, "reconcile", "reconcile:reconcile", "Ask the vendor about recordings whose callbacks are missing."
    )
    group.add_argument("--once", action="store_true", help="do one round and end, for cron; exit code 1 if it failed")
    reconcile = group.add_subparsers(metavar="COMMAND")
    show = _command(reconcile, "show", "reconcile:show", "Show how the asking goes, by application.")
    _json(show)
    audit = _command(reconcile, "audit", "reconcile:audit", "List rooms that were recorded and of which nobody knows.")
    audit.add_argument("--since", metavar="T", help="recorded since: 2026-11-23, or an age: 3d")
    _json(audit)
    register = _command(commands, "register", "reconcile:register", "Have the vendor asked about a recording.")
    register.add_argument("task_id", metavar="TASK_ID", help="the TaskId that starting it returned")
    register.add_argument("--app", type=_positive, required=True, metavar="ID", help="SdkAppId")
    register.add_argument("--room", type=_natural, metavar="ID", help="RoomId, if you know it")


def _add_inspection(commands: Any) -> None:
    schema = _command(commands, "schema", "schema:schema", "Print the JSON Schema, AsyncAPI 3 and OpenAPI 3.1.")
    schema.add_argument("--output", metavar="FOLDER", help="write each to its file there instead")
    config = _command(commands, "config", "config:config", "Print the effective settings, secrets masked.")
    config.add_argument("--reveal", action="store_true", help="show the callback keys and the path token")
    _json(config)
    shell = _command(commands, "completion", "completion:completion", "Print what a shell needs to complete commands.")
    shell.add_argument("shell", choices=["bash", "zsh", "fish"], help="eval it, or put it where the shell looks")
    doctor = _command(commands, "doctor", "doctor:doctor", "Check keys, clock, broker, database and disk.")
    doctor.add_argument(
        "--await-callback", action="store_true", help="wait for the first callback instead, and explain every refusal"
    )
    doctor.add_argument("--timeout", type=_seconds, metavar="S", help="wait so many seconds at most (default: 600)")
    _json(doctor)


def _json(parser: argparse.ArgumentParser, *, default: Any = False) -> None:
    parser.add_argument("--json", action="store_true", default=default, help="one JSON document on standard output")


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", type=_natural, metavar="ID", help="of one SdkAppId")
    parser.add_argument("--since", metavar="T", help="2026-11-23, 2026-11-23T10:00Z, or an age: 90m, 12h, 3d")
    parser.add_argument("--limit", type=_natural, default=1000, metavar="N", help="at most (default: 1000; 0: all)")
    _listing(parser)


def _until(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", metavar="T", help="before this moment; written as that of --since")


def _listing(parser: argparse.ArgumentParser, *, default: Any = False) -> None:
    parser.add_argument("--wide", action="store_true", default=default, help="every column, however long the lines")
    _json(parser, default=default)


def _letters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--consumer", metavar="C", help="of one consumer")
    parser.add_argument("--event-id", metavar="E", help="of one event")
    reason = "with this reason: all of it, its first 200 characters, or as the console groups them, … for what changes"
    parser.add_argument("--reason", metavar="R", help=reason)


def _replayed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replayed", action="store_true", help="those that were replayed instead")


def _natural(text: str) -> int:
    return _number(text, at_least=0)


def _positive(text: str) -> int:
    return _number(text, at_least=1)


def _number(text: str, *, at_least: int) -> int:
    # Python refuses thousands of digits, and a database more than 64 bits.
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < at_least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {at_least} with at most 18 digits")
    return int(text)


def _seconds(text: str) -> float:
    # A day is longer than anybody waits.
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) or not 0 < float(text) <= 86_400:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 86400")
    return float(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return share


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1_000_000:  # noqa: PLR2004 - infinity and NaN are no rates
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate")
    return rate


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    with _without_rich():
        # Imported here: see above. This imports structlog.
        from tiw.process import run  # noqa: PLC0415

    return run(parsed)


@contextmanager
def _without_rich() -> Iterator[None]:
    """Let what is imported meanwhile take Rich for not installed.

    Structlog imports it wherever it is, for tracebacks in colour. Ours are plain, and 4 MB of every process are saved.
    """
    # So an import raises ImportError: https://docs.python.org/3/reference/import.html#the-module-cache
    there = sys.modules.get("rich")
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["rich"]
        if there is not None:
            sys.modules["rich"] = there
