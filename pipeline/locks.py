"""Locks of one holder at a time: the kernel's on this machine, an object on gs:// and s3://."""

import logging
from typing import Any, Protocol

from mbt.pipeline import storage
from mbt.pipeline.file_lock import FileLock
from mbt.schemas.holder import Holder

_LOG = logging.getLogger(__name__)


class Lock(Protocol):
    """A lock that has a path."""

    @property
    def advice(self) -> str:
        """What to do about one that another holds."""

    def take(self) -> bool:
        """Takes it; False where another has it."""

    def is_held(self) -> bool:
        """Whether anybody has it."""

    def holder(self) -> Holder | None:
        """Who has it, as far as that is known."""

    def remove(self) -> None:
        """Removes it, whoever holds it."""

    def release(self) -> None:
        """Gives it back, if this object took it."""

    def forget(self) -> None:
        """In a forked process: the lock is its parent's."""


def lock(path: str) -> Lock:
    """The lock at a path, which nobody has taken by that."""
    if storage.is_local(path):
        return FileLock(path)
    return _Object(path, storage.conditional(path))


class _Object:
    """An object that is there as long as its maker, or nobody after a crash, holds it."""

    advice = (
        "Wait for it, or choose another --output. If it is dead, for a process that is killed leaves its lock here, "
        "add --take_over."
    )

    def __init__(self, path: str, store: storage.ConditionalStore):
        self._path = path
        self._store = store
        self._version: Any = None

    def take(self) -> bool:
        ours = Holder.this_process(by_kernel=False)
        self._version = self._store.create_new(self._path, ours.to_json())
        if self._version is None:
            found = self._store.read_version(self._path)
            if found is not None and Holder.from_json(found[0]) == ours:
                self._version = found[1]
        return self._version is not None

    def is_held(self) -> bool:
        return self._store.exists(self._path)

    def holder(self) -> Holder | None:
        found = self._store.read_version(self._path)
        return Holder.from_json(found[0]) if found else None

    def remove(self) -> None:
        found = self._store.read_version(self._path)
        if found is not None:
            self._store.delete_version(self._path, found[1])

    def release(self) -> None:
        version, self._version = self._version, None
        if version is None:
            return
        try:
            self._store.delete_version(self._path, version)
        except storage.errors() as error:
            _LOG.warning(
                "%s could not be removed, so the next command needs --take_over: %s", self._path, storage.said(error)
            )

    def forget(self) -> None:
        self._version = None
