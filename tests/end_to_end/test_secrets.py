"""A Sign and its ExpireTime sign any body: they, and the key, are nowhere to be found once a callback is answered."""

import asyncio
import json

import aiormq
import pytest

from broker import BUILT_IN_CONSUMERS, ConsumerQueues
from broker.topology import topology
from tests.end_to_end.deployment import Deployment, free_port, get
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import APP, callback, post, signed

#: Where the generated key stands, on purpose.
KEY_FILE = "callback_keys.json"

#: The one place where a Sign is kept, for a day: refused callbacks that another key might let in.
REJECTED_FILE = "rejected.db"


class Searched:
    """A deployment that has answered signed callbacks of all sorts, and what must not be found in it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        del deployment.settings["TIW_CALLBACK_KEYS"]
        # The wait is long enough to find retries in their queue.
        deployment.settings["TIW_RETRY_DELAYS_S"] = "600"
        admin_port = free_port()
        deployment.settings["TIW_ADMIN"] = f"127.0.0.1:{admin_port}"
        self.metrics = f"http://127.0.0.1:{admin_port}/metrics"
        deployment.install("fails", "plain")
        if deployment.is_embedded:
            deployment.up()
        else:
            assert deployment.run("migrate").code == 0
            deployment.ingest()
            worker_admin = {"TIW_ADMIN": f"127.0.0.1:{free_port()}"}
            deployment.work(**worker_admin)
        (self.key,) = json.loads((deployment.data / KEY_FILE).read_bytes())[str(APP)]
        self.tokens = [self.key]
        self._post()

    def _post(self) -> None:
        address = self.deployment.address
        expected = (
            # Handled; handled and failed once; none of the five; broken in ways that are kept.
            (200, self._signed(callback("OnlineRecordStarted", "class-1"))),
            (200, self._signed(callback("OnlineRecordFinished", "class-1"))),
            (200, self._signed(callback("TranscodeFinished", "class-1"))),
            (200, self._signed({**callback("OnlineRecordStopped", "class-1"), "EventData": "no object"})),
            (200, self._signed(callback("OnlineRecordStopped", "class-\ud800"))),
            (200, self._signed(callback("OnlineRecordStopped", "class-1"))[:-1] + b',"Note":"\xff"}'),
            (200, self._signed(callback("OnlineRecordStopped", "class-1"))[:-1] + b',"Note":1,"Note":2}'),
            # Refused: unknown application, expired, and cut off or ambiguous although the Sign is right.
            (401, self._signed(callback("OnlineRecordStarted", "class-2", app=1))),
            (401, self._signed(callback("OnlineRecordStarted", "class-2")).replace(b"1400000001", b"1400000002")),
            (401, self._signed(callback("OnlineRecordStarted", "class-2"), expires_in_s=-86_400)),
            (400, self._signed(callback("OnlineRecordStarted", "class-2"))[:-1]),
            (400, self._signed(callback("OnlineRecordStarted", "class-2"))[:-1] + b',"SdkAppId":1400000001}'),
        )
        for status, body in expected:
            assert post(address, body) == status, body

    def _signed(self, content: dict[str, object], *, expires_in_s: int = 3600) -> bytes:
        # Each expires at another second, and so has a Sign of its own.
        expires_in_s += len(self.tokens)
        body = signed(content, key=self.key, expires_in_s=expires_in_s)
        self.tokens += [body["Sign"]]
        return json.dumps(body).encode()

    def assert_absent(self, content: bytes, where: str) -> None:
        """Assert that there is something, and no secret in it, in either case or encoding."""
        assert content, f"{where} is empty: nothing was searched"
        lowered = content.lower()
        for token in self.tokens:
            assert token.encode() not in lowered, f"{token} is in {where}"
            assert bytes.fromhex(token) not in content, f"{token} is in {where}, as bytes"
            assert token.encode().hex().encode() not in lowered, f"{token} is in {where}, as hex"


@pytest.fixture(scope="module")
def searched(deployment: Deployment) -> Searched:
    searched = Searched(deployment)
    eventually(lambda: deployment.count("events") == 7)
    eventually(lambda: deployment.logged("retry_scheduled", consumer="fails"))
    eventually(lambda: deployment.logged("retry_scheduled", consumer="plain"))
    return searched


def test_the_search_would_find_what_is_there(searched: Searched) -> None:
    with pytest.raises(AssertionError, match="is in a body"):
        searched.assert_absent(b'{"Sign":"' + searched.tokens[1].encode() + b'"}', "a body")
    assert len(set(searched.tokens)) == 13
    assert all(len(bytes.fromhex(token)) == 16 for token in searched.tokens)


def test_no_file_of_the_data_folder_holds_a_secret_but_the_two_that_must(searched: Searched) -> None:
    data = searched.deployment.data
    files = [file for file in data.rglob("*") if file.is_file() and file.stat().st_size]
    # The embedded transport, its journal, and the store are among them.
    names = {file.name for file in files}
    assert KEY_FILE in names
    if searched.deployment.is_embedded:
        assert {"store.db", "transport.db"} <= names
    for file in files:
        if file.name not in (KEY_FILE, REJECTED_FILE):
            searched.assert_absent(file.read_bytes(), str(file))
    assert (data / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_refused_callback_is_kept_for_its_owner_alone_and_its_sign_is_not_shown(searched: Searched) -> None:
    file = searched.deployment.data / "rejected" / REJECTED_FILE
    eventually(lambda: file.exists() and searched.tokens[8].encode() in file.read_bytes())
    assert file.stat().st_mode & 0o777 == 0o600
    # Only of what was refused for its key; not of what came too late, was cut off or ambiguous, or was let in.
    content = file.read_bytes()
    assert [index for index, token in enumerate(searched.tokens) if token.encode() in content] == [8, 9]
    for arguments in (["list", "--json"], ["reverify"]):
        searched.assert_absent(
            searched.deployment.run("rejected", *arguments).out.encode(), f"tiw rejected {arguments}"
        )


def test_the_database_holds_no_secret(searched: Searched) -> None:
    deployment = searched.deployment
    if deployment.is_embedded:
        tables = [name for (name,) in deployment.select("SELECT name FROM sqlite_master WHERE type = 'table'")]
    else:
        tables = [name for (name,) in deployment.select("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert {"events", "recordings", "dead_letters", "completions"} <= set(tables)
    for table in tables:
        rows = deployment.select(f"SELECT * FROM {table}")  # noqa: S608 - names of ours
        searched.assert_absent(f"{table}: {rows}".encode(), table)
    bodies = deployment.run("events", "list", "--bodies", "--json").out
    searched.assert_absent(bodies.encode(), "events list --bodies")
    assert "ExpireTime" not in bodies


def test_no_queue_holds_a_secret(searched: Searched) -> None:
    deployment = searched.deployment
    if deployment.is_embedded:
        # They are the bytes of transport.db, which the test of the data folder has searched.
        assert (deployment.data / "transport.db").exists()
        return
    found = asyncio.run(peek(deployment.settings["TIW_AMQP_URL"]))
    assert len(found) >= 2, "the retries that wait were not found"
    for queue, content in found:
        searched.assert_absent(content, queue)


async def peek(url: str) -> list[tuple[str, bytes]]:
    """Return headers and body of every message in every queue, which all go back when the connection is closed."""
    custom = [ConsumerQueues(consumer=name, routing_keys=()) for name in ("fails", "plain")]
    queues = topology((*BUILT_IN_CONSUMERS, *custom), retry_delays_s=(600,)).queues
    found: list[tuple[str, bytes]] = []
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for queue in queues:
            while (message := await channel.basic_get(queue.name)).delivery_tag is not None:
                found.append((queue.name, f"{message.header.properties}".encode() + message.body))
    finally:
        await connection.close()
    return found


def test_no_log_and_no_output_holds_a_secret_but_the_one_line_with_the_key(searched: Searched) -> None:
    printed = f"callback key for {APP}: {searched.key}\n"
    outputs = [program.out for program in searched.deployment.programs]
    assert sum(output.count(printed) for output in outputs) == 1
    for program in searched.deployment.programs:
        searched.assert_absent(program.err.encode(), "a log")
        searched.assert_absent(b"output: " + program.out.replace(printed, "").encode(), "an output")


def test_the_metrics_hold_no_secret(searched: Searched) -> None:
    status, metrics = get(searched.metrics)
    assert (status, "tiw_callbacks_accepted_total" in metrics) == (200, True)
    searched.assert_absent(metrics.encode(), "/metrics")


def test_the_configuration_shows_secrets_only_when_asked(searched: Searched) -> None:
    searched.assert_absent(searched.deployment.run("config", "--json").out.encode(), "tiw config")
    searched.assert_absent(searched.deployment.run("doctor", "--json").out.encode(), "tiw doctor")
    assert searched.key in searched.deployment.run("config", "--reveal", "--json").out
