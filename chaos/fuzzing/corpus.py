"""The inputs that are kept: what the fuzzers begin with, and what once broke a promise."""

from pathlib import Path

from chaos.fuzzing.targets import Target

#: One folder per kind of input; several targets can take the same kind.
CORPUS = Path(__file__).parent / "corpus"

#: One folder per target, of inputs that it once failed on.
REGRESSIONS = Path(__file__).parent / "regressions"


def corpus_of(target: Target) -> list[Path]:
    """Return the files that `target` is to be run on, in the order of their names."""
    folders = (CORPUS / target.corpus, REGRESSIONS / target.name)
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())
