"""Which callback keys hold, and how a person gets to know a generated one."""

from ingest import KeyRing, generated_keys, parse_keys
from ingest.generated_keys import SDK_APP_ID
from tiw.errors import UsageError
from tiw.settings import Settings


def open_keys(settings: Settings) -> KeyRing:
    """Return the key ring, not entered yet. A key that is generated now is printed, this once.

    Raises `KeysError`; `UsageError` if an app that may send unsigned callbacks also has keys.
    """
    if settings.callback_keys is not None:
        ring = KeyRing(parse_keys(settings.callback_keys))
    elif settings.callback_keys_file is not None:
        ring = KeyRing.of_file(settings.callback_keys_file)
    elif SDK_APP_ID in settings.allow_unsigned:
        # The app that a key would be made for has none at the vendor either.
        ring = KeyRing({})
    else:
        generated = generated_keys(settings.data_dir)
        if generated.created:
            # To standard output and nowhere else: standard error is the log.
            print(f"callback key for {SDK_APP_ID}: {generated.keys[SDK_APP_ID][0]}", flush=True)
        ring = KeyRing.of_file(generated.path)
    both = sorted(settings.allow_unsigned & set(ring.current))
    if both:
        raise UsageError(
            f"TIW_ALLOW_UNSIGNED names {both[0]}, which also has callback keys: an app is signed or unsigned, not both"
        )
    return ring
