"""Fetches the files of recordings, proves them whole, and places them where they are to be kept."""

from archive.addresses import (
    DEFAULT_HOSTS,
    AddressRules,
    FetchError,
    ForbiddenAddressError,
    HostRule,
    check_url,
    is_forbidden_ip,
    parse_hosts,
    parse_networks,
)
from archive.fetching import Fetched, Fetcher, FetchLimits, FileHeaders, NotThereError, TooLargeError, Wanted
from archive.part_file import DiskFullError

__all__ = [
    "DEFAULT_HOSTS",
    "AddressRules",
    "DiskFullError",
    "FetchError",
    "FetchLimits",
    "Fetched",
    "Fetcher",
    "FileHeaders",
    "ForbiddenAddressError",
    "HostRule",
    "NotThereError",
    "TooLargeError",
    "Wanted",
    "check_url",
    "is_forbidden_ip",
    "parse_hosts",
    "parse_networks",
]
