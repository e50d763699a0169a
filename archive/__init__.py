"""Fetches the files of recordings, proves them whole, and places them where they are to be kept."""

from archive.addresses import DEFAULT_HOSTS, AddressRules, parse_hosts, parse_networks
from archive.checking import CheckedFile, ExpectedFile, FoundManifest, check_file, rebuild
from archive.fetching import Fetcher, FetchLimits
from archive.files import FileConfig
from archive.places import Place, PlaceError, S3Settings, open_place, parse_target, usual_style
from archive.planning import PlanConfig
from archive.service import ArchiveConfig, Archiver
from archive.staging import Staging, StagingError

__all__ = [
    "DEFAULT_HOSTS",
    "AddressRules",
    "ArchiveConfig",
    "Archiver",
    "CheckedFile",
    "ExpectedFile",
    "FetchLimits",
    "Fetcher",
    "FileConfig",
    "FoundManifest",
    "Place",
    "PlaceError",
    "PlanConfig",
    "S3Settings",
    "Staging",
    "StagingError",
    "check_file",
    "open_place",
    "parse_hosts",
    "parse_networks",
    "parse_target",
    "rebuild",
    "usual_style",
]
