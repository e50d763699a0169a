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
from archive.checking import CheckedFile, ExpectedFile, FoundManifest, check_file, rebuild
from archive.fetching import Fetched, Fetcher, FetchLimits, FileHeaders, NotThereError, TooLargeError, Wanted
from archive.files import FileConfig
from archive.naming import kind_of
from archive.part_file import DiskFullError
from archive.places import NotPlacedError, Place, PlaceError, S3Settings, open_place, parse_target, usual_style
from archive.planning import PlanConfig
from archive.service import ArchiveConfig, Archiver
from archive.staging import Staging, StagingError

__all__ = [
    "DEFAULT_HOSTS",
    "AddressRules",
    "ArchiveConfig",
    "Archiver",
    "CheckedFile",
    "DiskFullError",
    "ExpectedFile",
    "FetchError",
    "FetchLimits",
    "Fetched",
    "Fetcher",
    "FileConfig",
    "FileHeaders",
    "ForbiddenAddressError",
    "FoundManifest",
    "HostRule",
    "NotPlacedError",
    "NotThereError",
    "Place",
    "PlaceError",
    "PlanConfig",
    "S3Settings",
    "Staging",
    "StagingError",
    "TooLargeError",
    "Wanted",
    "check_file",
    "check_url",
    "is_forbidden_ip",
    "kind_of",
    "open_place",
    "parse_hosts",
    "parse_networks",
    "parse_target",
    "rebuild",
    "usual_style",
]
