"""The one client of S3 that a process has, from Beam's --s3_* flags, the environment, or where else boto3 looks."""

import os
from typing import Any

import boto3
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from botocore.config import Config

_CONNECTIONS = 64  # kept open; more threads than that at once open new ones
_TRIES = 8  # of a request that meets a busy service or a broken connection, ever longer apart
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_clients: dict[tuple, tuple[Any, PipelineOptions | None]] = {}  # with options, whose ids stay theirs


def split(path: str) -> dict[str, str]:
    """Bucket and key of a path, as the client's calls name them."""
    bucket, _, key = path.partition("://")[2].partition("/")
    return {"Bucket": bucket, "Key": key}


def client() -> Any:
    """One for each process, for a forked one must not share its parent's connections, and for each way to log in."""
    options = FileSystems._pipeline_options
    key = (os.getpid(), id(options), *map(os.environ.get, _ENVIRONMENT))
    if key not in _clients:
        made = _made(_flags(options or PipelineOptions([])))
        _clients.setdefault(key, (made, options))  # another thread may be faster; a lock would not survive a fork
    return _clients[key][0]


def _flags(options: PipelineOptions) -> dict[str, Any]:
    """Beam's flags, as boto3 calls them; what is not given is left to boto3."""
    given = options.view_as(S3Options)
    verify = given.s3_verify
    if isinstance(verify, str) and verify.lower() in ("false", "true", "0", "1", "no", "yes"):
        verify = verify.lower() in ("true", "1", "yes")  # else the path of a file of authorities
    return {
        "aws_access_key_id": given.s3_access_key_id,
        "aws_secret_access_key": given.s3_secret_access_key,
        "aws_session_token": given.s3_session_token,
        "endpoint_url": given.s3_endpoint_url,
        "region_name": given.s3_region_name,
        "api_version": given.s3_api_version,
        "use_ssl": not given.s3_disable_ssl,
        "verify": verify,
    }


def _made(flags: dict[str, Any]) -> Any:
    session = boto3.session.Session()  # threads must not share one
    config = Config(max_pool_connections=_CONNECTIONS, retries={"mode": "standard", "total_max_attempts": _TRIES})
    made = session.client("s3", config=config, **flags)
    if made.meta.endpoint_url.endswith(_AMAZON) or "addressing_style" in (made.meta.config.s3 or {}):
        return made
    # A server of one's own seldom has a name for each bucket, and may give the copy of an object that came in parts the
    # checksum of those; records, media and snapshots have checksums of their own.
    own = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
    return session.client("s3", config=config.merge(own), **flags)
