"""Whether a command line of Docker names what there is, told without Docker."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tiw.parser import build_parser

#: The commands that our pages use, with the options that those take, and whether they take a value.
_COMMANDS: dict[str, dict[str, bool]] = {
    "build": {"--no-cache": False},
    "config": {"--services": False},
    "cp": {},
    "down": {"-v": False},
    "exec": {"-T": False},
    "logs": {"-f": False},
    "ps": {},
    "restart": {},
    "run": {"--rm": False, "-v": True},
    "start": {},
    "stop": {},
    "up": {"-d": False, "--build": False, "--scale": True, "--force-recreate": False},
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AssertionError(message)


def check_compose(arguments: Sequence[str], root: Path) -> None:
    """Fail unless the files, profiles, services, volumes, options and commands of `docker compose ...` exist."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("-f", dest="files", action="append", default=[])
    parser.add_argument("--profile", dest="profiles", action="append", default=[])
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    composed: dict[str, Any] = {}
    for file in given.files or ["docker-compose.yml"]:
        composed |= yaml.safe_load((root / file).read_text(encoding="utf-8"))
    services = composed["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    assert set(given.profiles) <= profiles, f"there is no profile {given.profiles}"
    runs_a_command = given.command in ("exec", "run")
    options, words = _split(given.rest, _COMMANDS[given.command], ends_at_a_word=runs_a_command)
    for replicas in options.get("--scale", []):
        assert replicas.partition("=")[0] in services, f"there is no service {replicas}"
    for volume in filter(None, options.get("-v", [])):  # that of `down` has no value
        named = volume.partition(":")[0].removeprefix(f"{composed['name']}_")
        assert named in composed["volumes"], f"there is no volume {named}"
    if given.command == "cp":
        sources = [word.partition(":")[0] for word in words if ":" in word]
        assert set(sources) <= services.keys(), words
        return
    services_named = set(words[:1] if runs_a_command else words)
    assert services_named <= services.keys(), f"there is no service {services_named}"
    if runs_a_command:
        _check_command(given.command, services[words[0]], words[1:])


def _split(
    rest: Sequence[str], takes_value: dict[str, bool], *, ends_at_a_word: bool
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options with their values, and the words: all from the first one on where that is a command."""
    options: dict[str, list[str]] = {}
    words: list[str] = []
    left = list(rest)
    while left and not (words and ends_at_a_word):
        first = left.pop(0)
        if first.startswith("-"):
            assert first in takes_value, f"{first} is no option that we know of"
            options.setdefault(first, []).append(left.pop(0) if takes_value[first] else "")
        else:
            words.append(first)
    return options, [*words, *left]


def _check_command(how: str, service: dict[str, Any], words: Sequence[str]) -> None:
    is_ours = service["image"] == "localhost/tiw-callbacks"
    if is_ours and (how == "run" or words[0] == "tiw"):
        tiw = build_parser()
        try:
            tiw.parse_args(words if how == "run" else words[1:])
        except SystemExit as error:
            raise AssertionError(f"tiw refuses {' '.join(words)}") from error
    else:
        assert re.fullmatch(r"[\w-]+", words[0]), words
