"""A pipeline with a school's callbacks in it, and the console beside it."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from simulator import VendorApi, VendorFiles
from tests.browser.school import School, contents, make_school
from tests.end_to_end.deployment import Deployment, distributed, embedded, free_port
from tests.end_to_end.programs import Program, eventually
from tests.end_to_end.sending import APP, KEY, callback, event_id, post, send, signed
from tests.reconcile.serving import in_thread, settings_for
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer

CONSUMERS = Path(__file__).parent / "consumers"
TOKEN = "operate-0123456789-abcdefgh"
READ_TOKEN = "read-0123456789-abcdefghijk"

#: Signed with it, a callback is refused.
WRONG_KEY = "0123456789abcdef0123456789abcdef"


class Pipeline:
    """A deployment that runs, with what was sent to it."""

    def __init__(self, deployment: Deployment, files: VendorFiles, api: VendorApi, school: School) -> None:
        self.deployment = deployment
        self.files = files
        self.api = api
        self.school = school
        self.token = TOKEN
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._console: Program | None = None
        self._keys = deployment.folder / "keys.json"
        self.set_keys(KEY)
        del deployment.settings["TIW_CALLBACK_KEYS"]
        deployment.settings |= {
            **settings_for(api),
            "TIW_CALLBACK_KEYS_FILE": str(self._keys),
            "TIW_CONSOLE": f"127.0.0.1:{self.port}",
            "TIW_CONSOLE_TOKEN": TOKEN,
            "TIW_CONSOLE_READ_TOKEN": READ_TOKEN,
            "TIW_ARCHIVE": str(deployment.folder / "classes"),
            "TIW_ARCHIVE_HOSTS": files.url.removeprefix("http://"),
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
            "TIW_ARCHIVE_MIN_FREE_BYTES": "0",
        }
        shutil.copy(CONSUMERS / "copies.py", deployment.plugins)
        self._open = deployment.plugins / "copies.open"
        self._open.touch()
        deployment.settings["TIW_CONSUMERS"] = str(deployment.plugins)

    @property
    def is_embedded(self) -> bool:
        return self.deployment.is_embedded

    def set_keys(self, *keys: str) -> None:
        """Let callbacks be signed with these; it is read again by itself."""
        new = self._keys.with_suffix(".new")
        new.write_text(json.dumps({str(APP): keys}), encoding="utf-8")
        new.chmod(0o600)
        new.replace(self._keys)

    def start(self) -> None:
        """Start all of it; the console answers."""
        deployment = self.deployment
        if deployment.is_embedded:
            deployment.up()
        else:
            admin = f"127.0.0.1:{free_port()}"
            deployment.settings["TIW_CONSOLE_PEERS"] = f"http://{admin}"
            assert deployment.run("migrate").code == 0
            deployment.work()
            deployment.ingest(TIW_ADMIN=admin)
            deployment.program("archive", "run").wait_logged("archiving_started")
            deployment.program("reconcile")
            self.start_console()
        self.wait_console()

    def start_console(self) -> None:
        """Start the console as a process of its own."""
        self._console = self.deployment.program("console")

    def stop_console(self) -> None:
        """End the console, and return once it has ended."""
        assert self._console is not None
        self._console.stop()
        self.deployment.programs.remove(self._console)
        self._console = None

    def wait_console(self) -> None:
        """Return once the console answers."""
        eventually(lambda: _status(f"{self.url}/livez") == 200)

    def fill(self) -> None:
        """Send what happened at the school, and wait until all that follows from it is there."""
        school, deployment = self.school, self.deployment
        self.open_share(school.archived.task_id)
        sent = [content for cls in school.classes for content in contents(cls)]
        send(deployment.address, *sent)
        unknown = callback("OnlineRecordSnapshot", "task-of-an-event-that-nobody-knows")
        send(deployment.address, unknown)
        refused = callback("OnlineRecordStarted", "refused-0001", RoomId=880_599)
        assert post(deployment.address, signed(refused, key=WRONG_KEY)) == 401
        finished = [cls for cls in school.classes if cls.callbacks[-1].event_type == "OnlineRecordFinished"]
        expected = len({event_id(content) for content in (*sent, unknown)})
        eventually(lambda: int(self.one("SELECT count(*) FROM events")[0]) >= expected)
        self.wait_dead_letters(len(finished) - 1)
        self.wait_archived(school.archived.task_id)

    def open_share(self, *task_ids: str) -> None:
        """Let the consumer `copies` succeed with these."""
        with self._open.open("a", encoding="utf-8") as file:
            file.write("".join(f"{task_id}\n" for task_id in task_ids))

    def wait_dead_letters(self, count: int) -> None:
        """Return once so many dead letters are in the store, not replayed and not purged."""
        sql = "SELECT count(*) FROM dead_letters WHERE resolved_at_us IS NULL"
        eventually(lambda: int(self.one(sql)[0]) == count)

    def wait_archived(self, task_id: str) -> None:
        """Return once all files of a recording are archived."""
        sql = f"SELECT outcome FROM archived_files WHERE task_id = '{task_id}'"  # noqa: S608 - ids of ours
        eventually(lambda: {*self.select(sql)} == {("archived",)})

    def select(self, sql: str) -> list[tuple[str, ...]]:
        """Return the rows of a query, their values as text.

        Playwright's event loop counts as running in the thread of the tests, see `chromium.running`.
        """
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.deployment.select, sql).result()

    def one(self, sql: str) -> tuple[str, ...]:
        """Return the first row of a query."""
        return self.select(sql)[0]


@contextmanager
def prepared(
    folder: Path, servers: tuple[RabbitMQServer, PostgresServer] | None, **settings: str
) -> Iterator[Pipeline]:
    """Prepare a pipeline: over these servers, or in one process."""
    with ExitStack() as stack:
        files = stack.enter_context(in_thread(VendorFiles(shrink=1000)))
        school = make_school(files.bucket)
        files.add([school.archived])
        api = stack.enter_context(in_thread(VendorApi(school.classes, sdk_app_ids=[APP])))
        if servers is None:
            deployment = stack.enter_context(embedded(folder, **settings))
        else:
            rabbitmq, postgres = servers
            deployment = stack.enter_context(distributed(folder, rabbitmq, postgres, **settings))
        yield Pipeline(deployment, files, api, school)


def _status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
