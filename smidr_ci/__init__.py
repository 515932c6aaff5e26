"""smidr-ci: runs Yocto and BitBake builds for CI, with shared caches and readable failures."""

__version__ = "0.1.0"
