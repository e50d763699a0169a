"""`./dev fuzz`: what it says, and how it ends."""

from pathlib import Path

import pytest

import chaos.fuzzing.__main__ as command
from chaos.fuzzing import http, libfuzzer
from chaos.fuzzing.libfuzzer import CORPUS
from chaos.fuzzing.outcome import Outcome

_SAID = """\
INFO: Instrumenting ingest
#2\tINITED cov: 52 ft: 96 corp: 18/4189b exec/s: 0 rss: 73Mb
#99\tNEW    cov: 120 ft: 254 corp: 41/4415b lim: 774 exec/s: 20000 rss: 73Mb
"""
_CRASH = """\
BrokenPromiseError: an event's texts can be stored
==29129== ERROR: libFuzzer: fuzz target exited
SUMMARY: libFuzzer: fuzz target exited
stat::number_of_executed_units: 40911
"""


def test_what_the_fuzzer_says_is_read() -> None:
    assert libfuzzer.edges(_SAID) == 120
    assert libfuzzer.executions(_SAID + _CRASH) == 40911
    assert libfuzzer.reason(_SAID + _CRASH) == "BrokenPromiseError: an event's texts can be stored"
    assert libfuzzer.reason("==1== ERROR\nSUMMARY: libFuzzer: timeout\n") == "SUMMARY: libFuzzer: timeout"
    assert (libfuzzer.edges(""), libfuzzer.executions(""), libfuzzer.reason("")) == (0, 0, None)


def test_an_input_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = min((CORPUS / "bodies").iterdir())
    assert command.main(["--target", "admission", "--replay", str(path)]) == 0
    monkeypatch.setattr("chaos.fuzzing.targets.bodies.admit", None)
    assert command.main(["--target", "admission", "--replay", str(path)]) == 1


def test_a_request_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "request"
    path.write_bytes(b"CONNECT \r\n\r\n")
    assert command.main(["--target", http.NAME, "--replay", str(path)]) == 0


def test_a_finding_is_told_with_the_way_to_reproduce_it(capsys: pytest.CaptureFixture[str]) -> None:
    good = Outcome(target="admission", executions=10, seconds=1.0, edges=3)
    assert command.tell([good]) == 0
    assert "executions 10 findings 0" in capsys.readouterr().out
    bad = Outcome(target="keys", executions=5, seconds=1.0, finding=Path("found"), reason="an error about keys")
    assert command.tell([good, bad]) == 1
    told = capsys.readouterr().out
    assert "reproduce: ./dev fuzz --target keys --replay found" in told
    assert "executions 15 findings 1" in told


@pytest.mark.parametrize("arguments", [["--target", "nothing"], ["--executions", "0"], ["--replay", "x"]])
def test_misuse_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
