"""The vendor's side, as the settings name it: who is asked, what may be shown, and what `tiw doctor` says of it."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from ingest import CallbackKeys, KeysError
from tiw.doctor import Check
from tiw.keys import present_keys
from tiw.opening import ingest_config, open_vendor
from tiw.settings import FailedError, Settings, UsageError
from vendor_api import Again, BucketConfig, CallbackConfig, ClockOff, VendorClient, VendorError

#: A part of a path that is no shorter may be a secret; the words in one are.
_MAY_BE_A_TOKEN = 16

_MAX_ADDRESS_CHARACTERS = 200


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[VendorClient]:
    """Yield a client for a command that has no use without. Raises `UsageError` without credentials.

    What the vendor refuses, or that it does not answer, becomes a `FailedError` that says so.
    """
    if settings.vendor_secret_id is None:
        raise UsageError(
            "this asks the vendor's API: set TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY, see docs/vendor-console.md"
        )
    try:
        async with open_vendor(settings) as client:
            yield client
    except VendorError as error:
        raise FailedError(f"the vendor did not do it: {error}") from error


def only_app(app: int | None, keys: CallbackKeys) -> int:
    """Return the application that is meant: `app`, or the one that there are keys of. Raises `UsageError`."""
    if app is not None:
        return app
    if len(keys) != 1:
        known = ", ".join(map(str, sorted(keys))) or "none"
        raise UsageError(f"which application? Give --app SDKAPPID; there are callback keys of: {known}")
    return next(iter(keys))


def shown_address(url: str) -> str:
    """Return a callback address without what may be secret in it: a token in its path, a user, a query."""
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
    except ValueError:
        return "an address that cannot be read"
    parts = split.path.split("/")
    path = "/".join(
        "***" if len(part) >= _MAY_BE_A_TOKEN or (part and before == "tiw") else part
        for before, part in zip(["", *parts], parts, strict=False)
    )
    shown = f"{split.scheme}://{host}{'' if port is None else f':{port}'}{path}{'?***' if split.query else ''}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown[:_MAX_ADDRESS_CHARACTERS])


def leads_to_us(url: str, settings: Settings) -> bool:
    """Say whether an address has the path, token included, at which ingest takes callbacks."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return False
    return hmac.compare_digest(path.encode(), ingest_config(settings).path.encode())


def digest(key: str) -> str:
    """Return what a key is compared by."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def number_of(key: str, accepted: Iterable[str]) -> int | None:
    """Return the number of the vendor's key among ours, as `tiw keys show` counts; None if it is none of them."""
    wanted = digest(key)
    return next(
        (number for number, one in enumerate(accepted, start=1) if hmac.compare_digest(digest(one), wanted)), None
    )


async def check_vendor(settings: Settings) -> AsyncIterator[Check]:
    """Compare what the vendor has of each application with what we have. The settings must have credentials."""
    try:
        keys = present_keys(settings)
    except KeysError:
        # `check_keys` says what is wrong with them.
        return
    async with open_vendor(settings) as client:
        for app in sorted({*keys, *settings.allow_unsigned} - {0}):
            try:
                config = await client.describe_callback(app)
                yield _check_address(app, config, settings)
                yield _check_key(app, config, keys.get(app, ()), settings)
                yield await _check_bucket(app, client)
            except VendorError as error:
                yield _refused(app, error)
                if isinstance(error.refusal, Again | ClockOff):
                    # It would be the same with the others, each after a time-out.
                    return


def _check_address(app: int, config: CallbackConfig, settings: Settings) -> Check:
    check = "vendor's address"
    remedy = f"`tiw vendor set-callback URL --app {app}` sets it"
    if not config.url:
        return Check(check=check, ok=False, detail=f"{app}: none is set, so no callback comes", remedy=remedy)
    detail = f"{app}: {shown_address(config.url)}"
    if not leads_to_us(config.url, settings):
        return Check(
            check=check,
            ok=False,
            detail=f"{detail}, whose path is not the one at which ingest takes callbacks",
            remedy=f"{remedy}, unless a proxy in front writes paths anew; the path ends with TIW_PATH_TOKEN, if set",
        )
    if not config.url.startswith("https:"):
        advice = f"use HTTPS: everybody on the way can read a callback and the Sign in it; {remedy}"
        return Check(check=check, ok=True, detail=detail, remedy=advice)
    return Check(check=check, ok=True, detail=detail)


def _check_key(app: int, config: CallbackConfig, accepted: tuple[str, ...], settings: Settings) -> Check:
    check = "vendor's key"
    if not config.key:
        return Check(
            check=check,
            ok=app in settings.allow_unsigned,
            detail=f"{app}: none is set, so callbacks are unsigned",
            remedy=f"`tiw vendor rotate-key --app {app}` makes one and sets it",
        )
    number = number_of(config.key, accepted)
    if number is None:
        return Check(
            check=check,
            ok=False,
            detail=f"{app}: it is none of our {len(accepted)}, so callbacks are refused",
            remedy=f"`tiw keys add --app {app} --stdin` takes the vendor's, `tiw vendor rotate-key --app {app}` sets "
            "ours; then run `tiw rejected reverify`",
        )
    return Check(check=check, ok=True, detail=f"{app}: it is key {number} of our {len(accepted)}")


async def _check_bucket(app: int, client: VendorClient) -> Check:
    check = "vendor's bucket"
    try:
        bucket: BucketConfig = await client.bucket_config(app)
    except VendorError as error:
        return Check(check=check, ok=True, detail=f"{app}: not known: {error}")
    if not bucket.name:
        return Check(
            check=check,
            ok=True,
            detail=f"{app}: no bucket: files die after 3 days",
            remedy="set TIW_ARCHIVE (docs/recordings.md), or a bucket of your own in the vendor's console",
        )
    return Check(check=check, ok=True, detail=f"{app}: {bucket.name} in {bucket.location}"[:_MAX_ADDRESS_CHARACTERS])


def _refused(app: int, error: VendorError) -> Check:
    if isinstance(error.refusal, Again):
        remedy = "see that this machine reaches the vendor's API (TIW_VENDOR_SITE), then try again"
        return Check(check="vendor", ok=False, detail=f"{app}: {error}", remedy=remedy)
    what, _, remedy = error.refusal.explanation.en.partition(": ")
    code = "" if isinstance(error.refusal, ClockOff) else f" ({error.refusal.code})"
    return Check(check="vendor", ok=False, detail=f"{app}: {what}{code}", remedy=remedy)
