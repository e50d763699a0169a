"""What happened to a class, and what puts it right, in a browser."""

from console.now import NowDocument
from console.peers import PeerRejectedRow, Peers, PeersReverified
from console.requests import Done
from console.sending import SendChoices, SentTest
from console.server import ConsoleConfig, RunningConsole, run_console

__all__ = [
    "ConsoleConfig",
    "Done",
    "NowDocument",
    "PeerRejectedRow",
    "Peers",
    "PeersReverified",
    "RunningConsole",
    "SendChoices",
    "SentTest",
    "run_console",
]
