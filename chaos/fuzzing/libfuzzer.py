"""Running one target under libFuzzer, and reading what it says; the inputs that are kept."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from chaos.fuzzing.outcome import Options, Outcome
from chaos.fuzzing.targets import TARGETS, Target

#: One folder per kind of input; several targets can take the same kind.
CORPUS = Path(__file__).parent / "corpus"

#: One folder per target, of inputs that it once failed on.
REGRESSIONS = Path(__file__).parent / "regressions"


def corpus_of(target: Target) -> list[Path]:
    """Return the files that `target` is to be run on, in the order of their names."""
    folders = (CORPUS / target.corpus, REGRESSIONS / target.name)
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())


_DICTIONARY = Path(__file__).with_name("dictionary.txt")

#: An input that takes longer is a finding, whatever else happens on the machine.
_TIMEOUT_S = 20
_MEMORY_MB = 1024

#: After its own bound a target has this long to come to its end.
_GRACE_S = 60.0

_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_EDGES = re.compile(r"^#\d+\t.*? cov: (\d+)", re.MULTILINE)
_REASON = re.compile(r"^(?:.*Error: .*|SUMMARY: .*)$", re.MULTILINE)


def fuzz(target: Target, options: Options) -> Outcome:
    """Fuzz `target` until a bound of `options` is reached, or a promise is broken."""
    found = options.folder / "findings"
    own = options.folder / "corpus" / target.name
    log = options.folder / "logs" / f"{target.name}.log"
    for folder in (found, own, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    arguments = [
        *_bounds(target, options),
        f"-seed={options.seed}",
        f"-artifact_prefix={found}/{target.name}-",
        str(own),
    ]
    arguments += [str(folder) for folder in (CORPUS / target.corpus, REGRESSIONS / target.name) if folder.is_dir()]
    began_s = time.monotonic()
    code = _run(target, arguments, log)
    seconds = time.monotonic() - began_s
    said = log.read_text(errors="replace")
    finding = min(set(found.iterdir()) - before, default=None)
    return Outcome(
        target=target.name,
        executions=executions(said),
        seconds=seconds,
        edges=edges(said),
        finding=finding,
        reason=reason(said) or f"the fuzzer failed: see {log}" if finding or code else None,
    )


def executions(said: str) -> int:
    """Return how many inputs were run, out of what libFuzzer says."""
    return sum(map(int, _EXECUTED.findall(said)))


def edges(said: str) -> int:
    """Return how many branches were taken, as the last line of progress has it."""
    return max((int(count) for count in _EDGES.findall(said)), default=0)


def reason(said: str) -> str | None:
    """Return what is wrong: in our own words, or else in those of libFuzzer."""
    lines: list[str] = _REASON.findall(said)
    ours = [line for line in lines if not line.startswith(("SUMMARY", "=="))]
    return next(reversed(ours or lines), None)


def keep_new(target: Target, folder: Path, *, max_bytes: int = 512) -> int:
    """Copy into the corpus what an earlier run found that nothing there reaches; return how many inputs that is."""
    own = folder / "corpus" / target.name
    corpus = CORPUS / target.corpus
    merged = folder / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    shutil.copytree(corpus, merged)
    log = folder / "logs" / f"{target.name}-merge.log"
    if _run(target, ["-merge=1", f"-max_len={max_bytes}", str(merged), str(own)], log):
        return 0
    new = [path for path in merged.iterdir() if not (corpus / path.name).exists()]
    for path in new:
        shutil.copy(path, corpus / path.name[:16])
    return len(new)


def _bounds(target: Target, options: Options) -> list[str]:
    arguments = [
        f"-dict={_DICTIONARY}",
        f"-max_len={target.max_bytes}",
        f"-timeout={_TIMEOUT_S}",
        f"-rss_limit_mb={_MEMORY_MB}",
        "-print_final_stats=1",
    ]
    if options.executions is not None:
        shares = sum(TARGETS[name].share for name in options.targets)
        arguments.append(f"-runs={max(1, options.executions * target.share // shares)}")
    if options.seconds is not None:
        arguments.append(f"-max_total_time={max(1, round(options.seconds * options.jobs / len(options.targets)))}")
    return arguments


def _run(target: Target, arguments: list[str], log: Path) -> int:
    command = [sys.executable, "-P", "-m", "chaos.fuzzing.worker", target.name, *arguments]
    with log.open("wb") as output:
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(os.environ))
        try:
            return worker.wait()
        finally:
            if worker.poll() is None:
                worker.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(_GRACE_S)
                worker.kill()
                worker.wait()
