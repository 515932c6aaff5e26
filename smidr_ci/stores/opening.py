"""The store that the operator's settings describe."""

from __future__ import annotations

from urllib.parse import urlsplit

from smidr_ci.config.stores import StoreSettings
from smidr_ci.stores.directory import DirectoryStore
from smidr_ci.stores.model import ObjectStore, Pause

__all__ = ["open_store"]


def open_store(settings: StoreSettings, *, pause: Pause | None = None) -> ObjectStore:
    """A store to be closed by the caller; nothing is asked of it yet.

    `pause` waits between attempts of the HTTP store. Raises `ConfigError` when boto3 is missing.
    """
    if settings.directory is not None:
        return DirectoryStore(settings.directory, settings.public_url or "")
    if urlsplit(settings.url).scheme == "s3":
        from smidr_ci.stores.s3 import S3Store  # noqa: PLC0415 - slow to import, and optional

        return S3Store(settings)
    from smidr_ci.stores.web import WebStore  # noqa: PLC0415 - not everybody needs requests
    from smidr_ci.stores.web_calls import WebLogin  # noqa: PLC0415 - same

    return WebStore(
        settings.url,
        public_url=settings.public_url or "",
        login=WebLogin(settings.credentials_file),
        ca_file=settings.ca_file,
        pause=pause,
    )
