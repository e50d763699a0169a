"""Private load balancers with the settings of deploy/load-balancers, on 127.0.0.1 only."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers.postgres import DEADLINE_S, UNPRIVILEGED_USER

SETTINGS = Path(__file__).resolve().parents[2] / "deploy" / "load-balancers"

#: The file with the settings of each.
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "apache2": "apache.conf"}

#: What stands in the files for the two nodes.
NODES = ("10.0.0.11:8080", "10.0.0.12:8080")

#: What Debian's `a2enmod` links, with what it needs or has by default; mod_watchdog is built in there.
APACHE_MODULES = (
    *("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_balancer", "proxy_hcheck", "slotmem_shm"),
    "lbmethod_byrequests",
)


def load_balancer_program(name: str) -> str | None:
    """Return where a load balancer is installed, or None."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


class LoadBalancer:
    """`name` in front of the ingest nodes on two `ports` of 127.0.0.1; a context manager."""

    def __init__(self, name: str, program: str, ports: tuple[int, int]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=f"tiw-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._log = ""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        text = (SETTINGS / FILES[name]).read_text(encoding="utf-8")
        for written, port in zip(NODES, ports, strict=True):
            assert written in text
            text = text.replace(written, f"127.0.0.1:{port}")
        file = self._folder / FILES[name]
        file.write_text(self._placed(name, text), encoding="utf-8")
        self._command = {
            "nginx": [program, "-e", "stderr", "-p", str(self._folder), "-c", str(file), "-g", "daemon off;"],
            "haproxy": [program, "-db", "-f", str(file)],
            "caddy": [program, "run", "--config", str(file), "--adapter", "caddyfile"],
            "apache2": [program, "-DFOREGROUND", "-f", str(file)],
        }[name]

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            if os.geteuid() == 0:
                for path in (self._folder, self._folder / "log"):
                    shutil.chown(path, UNPRIVILEGED_USER)
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
                cwd=self._folder,
                start_new_session=True,
                user=UNPRIVILEGED_USER if os.geteuid() == 0 else None,
            )
        deadline_s = time.monotonic() + DEADLINE_S
        try:
            while not self._answers():
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline_s, self.log()
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            # It ends its workers itself; if it does not, they are of the same group.
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)
        self._log = self.log()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        """Return what it has written."""
        return self._log or (self._folder / "log").read_text(errors="replace")

    def _placed(self, name: str, text: str) -> str:
        """Return the settings with its port and folder in them: what a package settles in a main file of its own."""
        folder = self._folder
        if name == "nginx":
            places = "".join(
                f" {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            text = text.replace("/run/nginx.pid", f"{folder}/pid").replace("http {", f"http {{{places}")
            return text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        if name == "haproxy":
            return text.replace("bind :80", f"bind 127.0.0.1:{self.port}")
        if name == "caddy":
            text = text.replace("\n{\n", "\n{\n\tadmin off\n", 1)
            return text.replace("http://:80 {", f"http://127.0.0.1:{self.port} {{")
        assert set(re.findall(r"a2enmod (.*)", text)[0].split()) <= set(APACHE_MODULES)
        modules = "".join(f"LoadModule {one}_module /usr/lib/apache2/modules/mod_{one}.so\n" for one in APACHE_MODULES)
        main = f"ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\nDefaultRuntimeDir {folder}\n"
        log = f"Mutex file:{folder} default\nErrorLog {folder}/log\nListen 127.0.0.1:{self.port}\n"
        return f"{modules}{main}{log}{text.replace('*:80>', f'127.0.0.1:{self.port}>')}"

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
