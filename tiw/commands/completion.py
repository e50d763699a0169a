"""`tiw completion bash|zsh|fish`: what a shell needs to complete commands and options."""

import argparse
from collections.abc import Iterator

from tiw.parser import build_parser
from tiw.settings import Settings

#: Where the shell stands, and what may follow there.
_Place = tuple[tuple[str, ...], list[str]]


def completion(settings: Settings, args: argparse.Namespace) -> int:
    """Print the script, to be evaluated or put where the shell looks for it."""
    del settings
    places = list(_places(build_parser(), ()))
    print(_fish(places) if args.shell == "fish" else _bash(places, is_zsh=args.shell == "zsh"))
    return 0


def _places(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[_Place]:
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to be asked
        if action.help == argparse.SUPPRESS:
            continue
        words += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            words += action.choices
            for name, child in action.choices.items():
                yield from _places(child, (*path, name))
        elif action.choices:
            words += [str(choice) for choice in action.choices]
    yield path, words


def _bash(places: list[_Place], *, is_zsh: bool) -> str:
    paths = "|".join(f"'{' '.join(path)}'" for path, _ in places if path)
    lines = [
        *(["autoload -U +X bashcompinit && bashcompinit"] if is_zsh else []),
        "_tiw() {",
        '  local word place="" words=""',
        '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '    case "${place:+$place }$word" in',
        f'      {paths}) place="${{place:+$place }}$word" ;;',
        "    esac",
        "  done",
        '  case "$place" in',
        *(f"    '{' '.join(path)}') words='{' '.join(words)}' ;;" for path, words in places),
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))',
        "}",
        "complete -o default -F _tiw tiw",
    ]
    return "\n".join(lines)


def _fish(places: list[_Place]) -> str:
    lines = []
    for path, words in places:
        seen = " && ".join(f"__fish_seen_subcommand_from {word}" for word in path)
        condition = seen or "__fish_use_subcommand"
        for word in words:
            kind = f"-l {word.removeprefix('--')}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f"complete -c tiw -n '{condition}' {kind}")
    return "\n".join(lines)
