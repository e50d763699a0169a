"""Text that comes from anywhere, made fit for every database."""


def storable(text: str) -> str:
    """Return `text` with what SQL text cannot hold shown as U+FFFD: U+0000 and unpaired surrogates.

    PostgreSQL refuses U+0000 in text: https://www.postgresql.org/docs/current/datatype-character.html
    """
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
