"""The name under which a process holds leases, and what to do when the process behind a name is gone."""

import os
import re
import secrets
import socket
from pathlib import Path

from store import Store, lease_owners, release_owner

#: Names that this process made: they are alive as long as it is.
_OURS: set[str] = set()

_OWNER = re.compile(r"(?P<host>.*)/(?P<namespace>[^/]*)/(?P<pid>[0-9]+)/[0-9a-f]+")


def new_owner() -> str:
    """Return a name that no other process has, and that tells where this one runs."""
    owner = f"{socket.gethostname()}/{_namespace()}/{os.getpid()}/{secrets.token_hex(4)}"
    _OURS.add(owner)
    return owner


def is_gone(owner: str) -> bool:
    """Say whether the process that made this name has certainly ended; False where that cannot be seen from here."""
    match = _OWNER.fullmatch(owner)
    # Containers can share a host's name but not its process ids; without namespaces to compare, nothing is certain.
    if owner in _OURS or match is None or not _namespace():
        return False
    if (match["host"], match["namespace"]) != (socket.gethostname(), _namespace()):
        return False
    pid = int(match["pid"])
    if pid == os.getpid():
        # It was given to this process since.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


async def release_leases_of_the_gone(store: Store) -> int:
    """Let go of what killed processes of this host held, so that it need not run out first; return how much it was.

    Raises `StoreUnavailableError`.
    """
    gone = [owner for owner in await lease_owners(store) if is_gone(owner)]
    return sum([await release_owner(store, owner) for owner in gone])


def _namespace() -> str:
    """Return which process ids this process sees; empty where the kernel does not tell."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
