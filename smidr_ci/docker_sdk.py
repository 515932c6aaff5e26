"""The docker SDK's client and exceptions behind two functions; imported by `engine` when needed.

Importing the SDK takes 0.2 s, which commands that need no engine should not pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import urllib3.exceptions
from docker import APIClient
from docker.errors import APIError, DockerException, TLSParameterError
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

__all__ = ["LOST_CONNECTION", "APIError", "DockerException", "answer_of", "connect"]

LOST_CONNECTION: Final = (RequestException, urllib3.exceptions.HTTPError, ConnectionError)
"""What the SDK lets through when the engine closes, breaks or times out a connection."""


def connect(url: str, environ: Mapping[str, str], timeout_s: float) -> APIClient:
    """A client that speaks the newest API version both sides know.

    Raises `ValueError` for bad settings and `ConnectionError` when no engine answers; both say why.
    """
    try:
        # DOCKER_TLS_VERIFY and DOCKER_CERT_PATH
        tls = kwargs_from_env(dict(environ)).get("tls") or False
        return APIClient(url, version="auto", timeout=int(timeout_s), tls=tls)
    except TLSParameterError as error:
        raise ValueError(f"{error} (see DOCKER_TLS_VERIFY and DOCKER_CERT_PATH)") from error
    except (DockerException, *LOST_CONNECTION) as error:
        raise ConnectionError(str(error)) from error


def answer_of(error: APIError) -> str:
    """The engine's own words."""
    text: object = error.explanation or str(error)
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip()
