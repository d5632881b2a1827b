"""Who holds a lock: what stands in its file, for people, and for those who find it where the system has no locks."""

import dataclasses
import datetime
import json
import os
import socket
import sys
import uuid

from mbt.schemas import own_json

_LAST_PROCESS = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that has a lock.

    Attributes:
      process: its number.
      host: name of its machine.
      started: when it took the lock.
      command: that it carries out, without flags: a lock is no place for what they hold.
      token: tells our own lock, whose creation was repeated because its answer was lost, from another's.
      by_kernel: whether the lock goes when the process ends; else its file stays.
      system: since when, and with which numbers for processes, its machine runs; "" where that is not known.
      born: when the process was started, in that system's ticks; "" likewise.
    """

    process: int
    host: str
    started: str
    command: str
    token: str
    by_kernel: bool = True
    system: str = ""
    born: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.command}), since {self.started}"

    @classmethod
    def this_process(cls, *, by_kernel: bool = True) -> "Holder":
        """This one."""
        words = [os.path.basename(sys.argv[0]), *sys.argv[1:2]]
        return cls(
            process=os.getpid(),
            host=socket.gethostname(),
            started=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            command=" ".join(words),
            token=uuid.uuid4().hex,
            by_kernel=by_kernel,
            system=_system(),
            born=_born(os.getpid()),
        )

    def to_json(self) -> bytes:
        """As what stands in the file."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Holder | None":
        """From what stands in the file; None where that is not whole, or not ours."""
        try:
            found = cls(**own_json.parse(text))
        except (TypeError, ValueError):
            return None
        return found if found._is_sound() else None

    def _is_sound(self) -> bool:
        """Whether the values are what they must be; any program may have written the file."""
        process, by_kernel = self.process, self.by_kernel
        texts = (self.host, self.started, self.command, self.token, self.system, self.born)
        is_number = type(process) is int and 1 <= process <= _LAST_PROCESS
        return is_number and isinstance(by_kernel, bool) and all(isinstance(text, str) for text in texts)

    def is_dead(self) -> bool:
        """Whether the process is known to have ended: only this machine's processes are, since it was started."""
        if (self.host, self.system) != (socket.gethostname(), _system()):
            return False
        if self.born:
            return _born(self.process) != self.born  # or the number is another process's by now
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _system() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _born(process: int) -> str:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
