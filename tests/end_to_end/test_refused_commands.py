"""What cannot work ends with its exit code and one clear sentence, never with a traceback."""

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.commands import Finished
from tests.end_to_end.deployment import embedded
from tests.end_to_end.programs import eventually, run
from tests.end_to_end.sending import callback, send
from tiw.parser import main

KEYS = '{"1400000001": ["4fd1c0a96b7e4c7f8a2e5d3b1c9f7a60"]}'

SECRET = "7c1f0e9d5a"

BAD_SETTINGS: Mapping[str, tuple[dict[str, str], str]] = {
    "keys that are no JSON": ({"TIW_CALLBACK_KEYS": SECRET}, "TIW_CALLBACK_KEYS: the callback keys"),
    "no keys at all": ({"TIW_CALLBACK_KEYS": "{}"}, "TIW_CALLBACK_KEYS: the callback keys"),
    "an empty key": ({"TIW_CALLBACK_KEYS": '{"1400000001": [""]}'}, "TIW_CALLBACK_KEYS: callback key 1 of 1400000001"),
    "a key file that is not there": (
        {"TIW_CALLBACK_KEYS_FILE": "/nowhere/keys.json"},
        "TIW_CALLBACK_KEYS_FILE: the file of callback keys, /nowhere/keys.json",
    ),
    "keys and a key file": (
        {"TIW_CALLBACK_KEYS": KEYS, "TIW_CALLBACK_KEYS_FILE": "keys.json"},
        "TIW_CALLBACK_KEYS and TIW_CALLBACK_KEYS_FILE are both set",
    ),
    "an application that is no number": ({"TIW_ALLOW_UNSIGNED": "mine"}, "TIW_ALLOW_UNSIGNED"),
    "an application both signed and unsigned": (
        {"TIW_CALLBACK_KEYS": KEYS, "TIW_ALLOW_UNSIGNED": "1400000001"},
        "TIW_ALLOW_UNSIGNED names 1400000001",
    ),
    "unsigned callbacks from everywhere": (
        {"TIW_ALLOW_UNSIGNED": "0", "TIW_HTTP": "0.0.0.0:0"},
        "TIW_ALLOW_UNSIGNED beyond loopback needs TIW_PATH_TOKEN",
    ),
    "a short path token": ({"TIW_PATH_TOKEN": "short"}, "TIW_PATH_TOKEN must be at least 22"),
    "a path token and its file": (
        {"TIW_PATH_TOKEN": "a" * 22, "TIW_PATH_TOKEN_FILE": "token"},
        "TIW_PATH_TOKEN and TIW_PATH_TOKEN_FILE are both set",
    ),
    "an address without a port": ({"TIW_HTTP": "127.0.0.1"}, "TIW_HTTP must be HOST:PORT"),
    "a port that is none": ({"TIW_ADMIN": "127.0.0.1:99999"}, "TIW_ADMIN must be HOST:PORT"),
    "bodies of no size": ({"TIW_MAX_BODY_BYTES": "0"}, "TIW_MAX_BODY_BYTES"),
    "bodies larger than the broker takes": ({"TIW_MAX_BODY_BYTES": str(16 * 1024 * 1024)}, "TIW_MAX_BODY_BYTES"),
    "a broker of another kind": ({"TIW_AMQP_URL": f"kafka://user:{SECRET}@localhost"}, "TIW_AMQP_URL must be amqp://"),
    "a broker's file that is not there": (
        {"TIW_AMQP_URL_FILE": "/nowhere/url"},
        "TIW_AMQP_URL_FILE names /nowhere/url",
    ),
    "a broker's port that is none": (
        {"TIW_AMQP_URL": f"amqp://user:{SECRET}@localhost:port/", "TIW_CALLBACK_KEYS": KEYS},
        "TIW_AMQP_URL: address 1 of the broker",
    ),
    "a guest on another machine": (
        {"TIW_AMQP_URL": "amqp://guest:guest@broker.invalid/", "TIW_CALLBACK_KEYS": KEYS},
        "TIW_AMQP_URL: refusing to be guest",
    ),
    "a database's port that is none": (
        {"TIW_DATABASE_URL": f"postgresql+asyncpg://user:{SECRET}@localhost:port/tiw", "TIW_CALLBACK_KEYS": KEYS},
        "TIW_DATABASE_URL: the database's URL cannot be read",
    ),
    "a database's parameter that nobody knows": (
        {"TIW_DATABASE_URL": f"postgresql+asyncpg://user:{SECRET}@localhost/tiw?nobody=1", "TIW_CALLBACK_KEYS": KEYS},
        "TIW_DATABASE_URL: the database's URL has parameters",
    ),
    "a database of another kind": (
        {"TIW_DATABASE_URL": f"mysql://user:{SECRET}@localhost/tiw"},
        "TIW_DATABASE_URL must be",
    ),
    "a database with another driver": (
        {"TIW_DATABASE_URL": f"postgresql://user:{SECRET}@localhost/tiw"},
        "TIW_DATABASE_URL must start with postgresql+asyncpg://",
    ),
    "a data folder that is a file": ({"TIW_DATA_DIR": "/dev/null"}, "TIW_DATA_DIR, in /dev/null"),
    "delays that shrink": ({"TIW_RETRY_DELAYS_S": "5,1"}, "TIW_RETRY_DELAYS_S"),
    "no delays": ({"TIW_RETRY_DELAYS_S": "soon"}, "TIW_RETRY_DELAYS_S"),
    "an unknown log format": ({"TIW_LOG_FORMAT": "xml"}, "TIW_LOG_FORMAT must be console or json"),
}


def assert_refused(finished: Finished, code: int, words: str) -> None:
    assert (finished.code, finished.out) == (code, ""), finished.err
    assert finished.err.startswith("tiw: "), finished.err
    assert finished.err.count("\n") == 1, finished.err
    assert words in finished.err
    assert SECRET not in finished.err


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Finished]]]:
    """Start `up` with every bad setting, a few at a time."""
    # One folder each: they run side by side.
    folders = {what: tmp_path_factory.mktemp("refused") for what in BAD_SETTINGS}

    def start(what: str) -> Finished:
        settings, _ = BAD_SETTINGS[what]
        return run({"TIW_HTTP": "127.0.0.1:0", "TIW_ADMIN": "127.0.0.1:0", **settings}, "up", cwd=folders[what])

    with ThreadPoolExecutor(max_workers=3) as pool:
        yield {what: pool.submit(start, what) for what in BAD_SETTINGS}
    begun = [what for what, folder in folders.items() if (folder / "var" / "store.db").exists()]
    assert begun == []


@pytest.mark.parametrize("what", BAD_SETTINGS)
def test_up_is_refused_for(what: str, refusals: dict[str, Future[Finished]]) -> None:
    assert_refused(refusals[what].result(), 2, BAD_SETTINGS[what][1])


@pytest.mark.parametrize("command", ["ingest", "work"])
def test_a_process_of_its_own_needs_a_broker(command: str, tmp_path: Path) -> None:
    refused = run({"TIW_DATA_DIR": str(tmp_path)}, command)
    assert_refused(refused, 2, f"`tiw {command}` needs TIW_AMQP_URL")
    assert "`tiw up`" in refused.err


def test_an_unknown_consumer_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    refused = run(
        {"TIW_DATA_DIR": str(tmp_path), "TIW_AMQP_URL": f"amqp://user:{SECRET}@127.0.0.1:1"}, "work", "finish"
    )
    assert_refused(refused, 2, "there is no consumer 'finish': there are started, stopped")


def test_a_second_pipeline_on_the_same_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with embedded(tmp_path) as deployment:
        deployment.up()
        assert_refused(deployment.run("up"), 2, "another `tiw up` uses")
        send(deployment.address, callback("OnlineRecordStarted", "class-1"))
        eventually(lambda: deployment.count("events") == 1)
        assert_refused(deployment.run("recordings", "show", "class-2"), 1, "there is no recording class-2")
        assert_refused(deployment.run("events", "list", "--since", "yesterday"), 2, "--since takes")


@pytest.mark.parametrize(
    ("variable", "address", "reason"),
    [
        ("TIW_HTTP", "192.0.2.1:8080", "Cannot assign requested address"),
        ("TIW_ADMIN", "192.0.2.1:9080", "Cannot assign requested address"),
        ("TIW_ADMIN", "nowhere.invalid:9080", ""),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(variable: str, address: str, reason: str, tmp_path: Path) -> None:
    settings = {"TIW_CALLBACK_KEYS": KEYS, "TIW_HTTP": "127.0.0.1:0", "TIW_ADMIN": "127.0.0.1:0", variable: address}
    refused = run(settings, "up", cwd=tmp_path)
    assert (refused.code, refused.out) == (2, "")
    # It had begun, so its log stands before.
    assert refused.err.splitlines()[-1].startswith(f"tiw: {variable} is {address}, where nothing can listen ({reason}")
    assert "Traceback" not in refused.err


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in ("ingest", "up"):
            amqp = {"TIW_AMQP_URL": "amqp://user@127.0.0.1:1"} if command == "ingest" else {}
            settings = {"TIW_CALLBACK_KEYS": KEYS, "TIW_HTTP": address, "TIW_ADMIN": "127.0.0.1:0", **amqp}
            refused = run(settings, command, cwd=tmp_path)
            assert refused.code == 2
            sentence = f"tiw: TIW_HTTP is {address}, where nothing can listen (Address already in use): choose another"
            assert refused.err.splitlines()[-1] == sentence
            assert "Traceback" not in refused.err


def test_listings_before_anything_ran_say_what_to_do(tmp_path: Path) -> None:
    refused = run({"TIW_DATA_DIR": str(tmp_path / "data")}, "recordings", "list")
    assert_refused(refused, 1, "start `tiw up`")


@pytest.mark.parametrize("arguments", [["nonsense"], ["recordings"], ["events", "list", "--limit", "-1"]])
def test_misuse_is_refused_with_where_to_look(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capfd.readouterr()
    assert_refused(Finished(code=int(str(ended.value.code)), out=captured.out, err=captured.err), 2, "--help`)")


def test_a_unix_socket_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("keep it")
    missing = tmp_path / "missing"
    amqp = {"TIW_AMQP_URL": "amqp://user@127.0.0.1:1"}
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(tmp_path / "living"))
        living.listen()
        for path, reason, arguments in [
            (mine, "what is there is not a socket", ["up"]),
            (tmp_path / "living", "another process listens there", ["ingest"]),
            (missing / "ingest.sock", f"there is no folder {missing}: create it", ["ingest", "--processes", "2"]),
        ]:
            settings = {"TIW_CALLBACK_KEYS": KEYS, "TIW_HTTP": f"unix:{path}", "TIW_ADMIN": "127.0.0.1:0"}
            refused = run(settings | (amqp if "ingest" in arguments else {}), *arguments, cwd=tmp_path)
            assert refused.code == 2
            sentence = f"tiw: TIW_HTTP is unix:{path}, where nothing can listen ({reason}): choose another"
            assert refused.err.splitlines()[-1] == sentence
            assert "Traceback" not in refused.err
    assert mine.read_text() == "keep it"
