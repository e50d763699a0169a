"""The command line and the all-in-one: the only package that may import all others."""

__version__ = "0.1.0"

__all__ = ["__version__"]
