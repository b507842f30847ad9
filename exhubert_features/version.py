"""The package's version; bumped here alone."""

__version__ = "0.1.0"
