"""What happened to a class, and what puts it right, in a browser."""

from console.dead_letters import ReplayOutcome
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
    "ReplayOutcome",
    "RunningConsole",
    "SendChoices",
    "SentTest",
    "run_console",
]
