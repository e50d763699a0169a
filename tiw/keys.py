"""Which callback keys hold, and how a person gets to know a generated one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest import (
    GENERATED_KEYS_FILE,
    GENERATED_SDK_APP_ID,
    MAX_CHARACTERS,
    CallbackKeys,
    KeyRing,
    KeysError,
    generated_keys,
    parse_keys,
    write_keys,
)
from tiw.settings import FailedError, Settings, UsageError


def keys_file(settings: Settings) -> Path:
    """Return the file of callback keys that counts where TIW_CALLBACK_KEYS is unset; it need not be there yet."""
    return settings.callback_keys_file or settings.data_dir / GENERATED_KEYS_FILE


def open_keys(settings: Settings) -> KeyRing:
    """Return the key ring, not entered yet. A key that is generated now is printed, this once.

    Raises `KeysError`; `UsageError` if an app that may send unsigned callbacks also has keys. Both name the variable.
    """
    file = settings.data_dir / GENERATED_KEYS_FILE
    if settings.callback_keys is not None:
        source = "TIW_CALLBACK_KEYS"
        with _naming(source):
            ring = KeyRing(parse_keys(settings.callback_keys))
    elif settings.callback_keys_file is not None:
        source = "TIW_CALLBACK_KEYS_FILE"
        with _naming(source):
            ring = KeyRing.of_file(settings.callback_keys_file)
    elif GENERATED_SDK_APP_ID in settings.allow_unsigned and not file.exists():
        # The app that a key would be made for has none at the vendor either.
        return KeyRing({})
    else:
        source = f"TIW_DATA_DIR, in {file}"
        with _naming(source):
            ring = _open_generated(settings)
    both = sorted(settings.allow_unsigned & set(ring.current))
    if both:
        raise UsageError(
            f"TIW_ALLOW_UNSIGNED names {both[0]}, which also has callback keys ({source}): "
            "an app is signed or unsigned, not both"
        )
    return ring


def present_keys(settings: Settings) -> CallbackKeys:
    """Return the keys that hold now, for a command that looks at them once; none if none was given or generated yet.

    Raises `KeysError`, which names the variable.
    """
    if settings.callback_keys is not None:
        with _naming("TIW_CALLBACK_KEYS"):
            return parse_keys(settings.callback_keys)
    file = keys_file(settings)
    if settings.callback_keys_file is None and not file.exists():
        return {}
    with _naming("TIW_DATA_DIR" if settings.callback_keys_file is None else "TIW_CALLBACK_KEYS_FILE"):
        return KeyRing.of_file(file).current


def apps_of(settings: Settings, keys: CallbackKeys) -> frozenset[int]:
    """Return the applications whose callbacks are accepted, but for those without a number of their own."""
    return frozenset({*keys, *settings.allow_unsigned} - {0})


def changeable_keys_file(settings: Settings) -> Path:
    """Return the file in which keys are added and retired. Raises `UsageError` if they come from the environment."""
    if settings.callback_keys is not None:
        raise UsageError("the keys come from TIW_CALLBACK_KEYS: change the variable, or use TIW_CALLBACK_KEYS_FILE")
    return keys_file(settings)


def add_key(settings: Settings, app: int, key: str) -> int:
    """Accept `key` of `app`, too, and return its number. A running ingest node reads the file again by itself.

    Raises `UsageError` if it cannot be a key or the keys are not in a file, `FailedError` if it is there already,
    `KeysError` if the file cannot be written.
    """
    file = changeable_keys_file(settings)
    keys = dict(present_keys(settings))
    if not 1 <= len(key) <= MAX_CHARACTERS:
        raise UsageError(f"a key has 1 to {MAX_CHARACTERS} characters, and this one {len(key)}")
    if key in keys.get(app, ()):
        raise FailedError(f"{app} has this key already")
    keys[app] = (*keys.get(app, ()), key)
    _write_file(file, keys)
    return len(keys[app])


def retire_key(settings: Settings, app: int, number: int, *, even_the_last: bool = False) -> int:
    """Accept key `number` of `app` no more, and return how many are left.

    Raises `FailedError` if there is none of that number or it is the last one, and as `add_key`.
    """
    file = changeable_keys_file(settings)
    keys = dict(present_keys(settings))
    accepted = keys.get(app, ())
    if not 1 <= number <= len(accepted):
        raise FailedError(f"{app} has {len(accepted)} keys, and none of number {number}: see `tiw keys show`")
    left = (*accepted[: number - 1], *accepted[number:])
    if not left and not even_the_last:
        raise FailedError(
            f"it is the last key of {app}, whose callbacks would be refused: add another first, or use --force"
        )
    if left:
        keys[app] = left
    else:
        del keys[app]
    if not keys:
        raise FailedError("it is the last key of all: a file without any is refused, so add another first")
    _write_file(file, keys)
    return len(left)


def _write_file(file: Path, keys: CallbackKeys) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise KeysError(f"{file.parent} cannot be made: {error.strerror}") from error
    write_keys(file, keys)


def _open_generated(settings: Settings) -> KeyRing:
    generated = generated_keys(settings.data_dir)
    if generated.created:
        # To standard output and nowhere else: standard error is the log.
        print(f"callback key for {GENERATED_SDK_APP_ID}: {generated.keys[GENERATED_SDK_APP_ID][0]}", flush=True)
    return KeyRing.of_file(generated.path)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the variable to look at before what is wrong with the keys."""
    try:
        yield
    except KeysError as error:
        raise KeysError(f"{source}: {error}") from None
