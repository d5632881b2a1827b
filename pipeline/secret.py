"""Secrets, named by where they are kept: a file, a file on each worker, or Google's Secret Manager.

Only the name travels with a job. A worker reads the secret itself when it starts, and what it reads is in no message.
"""

import os
import re

from mbt.pipeline import storage
from mbt.pipeline.bounds import within

_NAMED = re.compile(r"(?:sm://|projects/)([^/]+)/(?:secrets/)?([^/]+)(?:/(?:versions/)?([^/]+))?", re.ASCII)
_LOOKS_NAMED = re.compile(r"sm:|projects/[^/]+/secrets/")
_ON_WORKERS = "worker:"
# gcloud reads it too; its value is a URL.
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
_TIMEOUT_S = 60.0

FORMS = "sm://PROJECT/NAME, sm://PROJECT/NAME/VERSION, or worker:/PATH for a file that each worker has mounted"


class SecretError(OSError):
    """A secret cannot be read; the message names it and holds nothing of it."""


def is_elsewhere(place: str) -> bool:
    """Whether a secret is not a file that this machine must have.

    Raises:
      SecretError: it looks like one, and is not written as one.
    """
    if place.startswith(_ON_WORKERS):
        if not os.path.isabs(place.removeprefix(_ON_WORKERS)):
            raise SecretError(f"{place}: write {FORMS}")
        return True
    if not _LOOKS_NAMED.match(place):
        return False
    _version(place)
    return True


def read(place: str) -> str:
    """Reads a secret on the machine that needs it.

    Raises:
      SecretError: it cannot be read.
    """
    try:
        return _bytes(place).decode()
    except UnicodeDecodeError:
        raise SecretError(f"{place}: it is not text") from None  # what it is would be in the traceback
    except OSError as error:
        if isinstance(error, SecretError):
            raise
        raise SecretError(f"{place}: cannot be read ({type(error).__name__})") from None


def _bytes(place: str) -> bytes:
    if _LOOKS_NAMED.match(place):
        return _from_secret_manager(place)
    try:
        return storage.read(place.removeprefix(_ON_WORKERS))
    except storage.errors() as error:
        raise SecretError(f"{place}: cannot be read ({type(error).__name__})") from None


def _version(place: str) -> str:
    """The name of a secret's version, as Secret Manager has it."""
    match = _NAMED.fullmatch(place)
    if not match:
        raise SecretError(f"{place}: write {FORMS}")
    return f"projects/{match[1]}/secrets/{match[2]}/versions/{match[3] or 'latest'}"


def _from_secret_manager(place: str) -> bytes:
    import google_crc32c

    version = _version(place)
    try:
        payload = within(_TIMEOUT_S, lambda: _client().access_secret_version(name=version, timeout=_TIMEOUT_S).payload)
    except Exception as error:  # Google's, requests', urllib3's, protobuf's of a page that is no answer
        why = getattr(getattr(error, "code", None), "name", type(error).__name__)
        raise SecretError(f"{place}: Secret Manager does not give it ({why})") from None  # no answer in the traceback
    if payload.data_crc32c and payload.data_crc32c != google_crc32c.value(payload.data):
        raise SecretError(f"{place}: it came damaged")
    return payload.data


def _client():
    """A client over HTTP: gRPC's threads do not survive the forks of a worker's children."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import secretmanager

    endpoint = os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/")
    options = {"api_endpoint": endpoint} if endpoint else None
    # No token goes over a connection that anybody can read.
    credentials = AnonymousCredentials() if endpoint.startswith("http://") else None
    return secretmanager.SecretManagerServiceClient(transport="rest", client_options=options, credentials=credentials)
