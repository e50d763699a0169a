"""Shells complete commands, their commands, and options."""

import shutil
import subprocess

import pytest

from tiw.parser import main

_ASK = """
source /dev/stdin
COMP_WORDS=({line})
COMP_CWORD={at}
_tiw
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tiw", "re"], ["reconcile", "recordings", "register", "rejected"]),
        (["tiw", "recordings", ""], ["--help", "list", "show"]),
        (["tiw", "recordings", "list", "--s"], ["--since", "--status"]),
        (["tiw", "recordings", "list", "--status", "FA"], ["FAILED"]),
        (["tiw", "consumers", "--w"], ["--wide"]),
        (["tiw", "completion", "z"], ["zsh"]),
    ],
    ids=" ".join,
)
def test_bash_completes(words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = _ASK.format(line=" ".join(f"'{word}'" for word in words), at=len(words) - 1)
    finished = subprocess.run([bash, "-c", ask], input=script, capture_output=True, text=True, check=True, timeout=20)
    assert sorted(finished.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_their_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "dead-letters" in script
    assert "--child" not in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed: its script was NOT tried")
    subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=20)
