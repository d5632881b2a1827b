"""How the processes of a run find each other: process 0 waits at an address, and the others come there.

JAX has a rendezvous of its own, which ends a process with a stack trace when somebody is missing, and cannot say who.
So all meet here first, and JAX's then finds them present.
"""

import contextlib
import dataclasses
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from mbt.train.errors import LostError, UsageError
from mbt.train.wire import Connection

TIMEOUT_S = 300.0
RETRY_S = 0.2
PATIENCE_S = 20.0  # before it is said who is waited for
LATE_S = 10.0  # how long those are waited for who are to be refused


class Processes(NamedTuple):
    """How a process finds the others of its run.

    Attributes:
      coordinator: host:port of process 0, the same for all. None, with both others, asks the cluster: Slurm, Open MPI,
        Kubernetes and TPU pods are known to JAX.
      num_processes: of the run.
      process_id: of this one, from 0.
      timeout_s: how long to wait for those that are late.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout_s: float = TIMEOUT_S


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where the processes of a run meet, and which of them this is.

    Attributes:
      host: of process 0, as all others reach it.
      port: of process 0.
      count: of processes.
      me: number of this one, from 0.
      run: what must be the same for all: a digest of the config.
      timeout_s: how long to wait for those that are late.
    """

    host: str
    port: int
    count: int
    me: int
    run: str = ""
    timeout_s: float = TIMEOUT_S

    @property
    def loopback(self) -> bool:
        """Whether no other machine can come there."""
        return self.host == "localhost" or self.host.startswith("127.")


@dataclasses.dataclass(frozen=True)
class Meeting:
    """All are here.

    Attributes:
      connections: of process 0 to each other one, by number; of another one to process 0.
      names: of the hosts of those.
      port: of process 0, at which JAX's service shall listen.
    """

    connections: dict[int, Connection]
    names: dict[int, str]
    port: int


def meet(place: Place) -> Meeting:
    """Waits until all processes of the run are there.

    Raises:
      UsageError: the address is not this machine's or is taken, or the processes were not started as one run.
      LostError: somebody did not come in time.
    """
    return _gather(place) if place.me == 0 else _come(place)


def _gather(place: Place) -> Meeting:
    try:
        server = _listen("" if not place.loopback else place.host, place.port)
    except OSError as error:
        reason = f"process 0 cannot listen there: {error.strerror}"
        raise UsageError(f"coordinator {place.host}:{place.port}: {reason}; give a free port of its host") from error
    here: dict[int, Connection] = {}
    names: dict[int, str] = {}
    with server, selectors.DefaultSelector() as selector, _telling_late_ones(place, here, server):
        selector.register(server, selectors.EVENT_READ)
        begun, told = time.monotonic(), False
        while len(here) < place.count - 1:
            waited_s = time.monotonic() - begun
            if waited_s > place.timeout_s:
                _refuse(here, LostError(f"{_missing(place, here)} did not come within {place.timeout_s:g} s"))
            if waited_s > PATIENCE_S and not told:
                told = True
                print(f"mbt-train: waiting for {_missing(place, here)} of {place.count}", file=sys.stderr, flush=True)
            for key, _ in selector.select(RETRY_S):
                if key.fileobj is server:
                    with contextlib.suppress(OSError):  # one that has gone again
                        selector.register(Connection(server.accept()[0]), selectors.EVENT_READ)
                else:
                    _hear(place, here, names, key.fileobj, selector)  # type: ignore[arg-type]
    port = _free_port()
    for connection in here.values():
        connection.send(go=port)
    return Meeting(here, names, port)


def _hear(
    place: Place,
    here: dict[int, Connection],
    names: dict[int, str],
    connection: Connection,
    selector: selectors.BaseSelector,
) -> None:
    """Takes in what somebody says who has come, or that he has gone again."""
    messages = connection.receive()
    if messages is None or any(_is_nobody(place, message) for message in messages):
        selector.unregister(connection)
        connection.close()
        for process in [process for process, other in here.items() if other is connection]:
            del here[process]
        return
    for message in messages:
        joining = message.get("join")
        if not isinstance(joining, int):
            continue
        if reason := _refusal(place, here, joining, message):
            present = here | {-1: connection}
            here.setdefault(joining, connection)  # it has come, and is not to be waited for
            _refuse(present, UsageError(reason))
        here[joining], names[joining] = connection, str(message.get("on"))


def _is_nobody(place: Place, message: dict) -> bool:
    """Whether somebody comes under a number that this run does not have: none of ours, and no reason to end it."""
    joining = message.get("join")
    return type(joining) is int and message.get("of") == place.count and not 0 <= joining < place.count


def _refusal(place: Place, here: dict[int, Connection], process: int, message: dict) -> str | None:
    if message.get("of") != place.count:
        return f"process {process} was started as one of {message.get('of')}, process 0 as one of {place.count}"
    if process in here or process == 0:
        return f"two processes were started as process {process}; give each its own number"
    if message.get("run") != place.run:
        return f"process {process} has another config or snapshot than process 0; start all with one command"
    return None


def _refuse(connections: dict[int, Connection], error: UsageError | LostError) -> None:
    for connection in connections.values():
        connection.send(refused=str(error), usage=isinstance(error, UsageError))
        connection.finish()
        connection.close()
    raise error


@contextlib.contextmanager
def _telling_late_ones(place: Place, here: dict[int, Connection], server: socket.socket) -> Iterator[None]:
    """Refuses those too who come a moment later, and would look for process 0 for minutes."""
    try:
        yield
    except UsageError as error:
        deadline = time.monotonic() + LATE_S
        for _ in range(place.count - 1 - len(here)):
            server.settimeout(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(OSError), contextlib.suppress(UsageError):
                client, _ = server.accept()
                client.settimeout(RETRY_S * 10)
                connection = Connection(client)
                connection.receive()  # what is not read when a connection is closed takes the answer along
                _refuse({0: connection}, error)
        raise


def _missing(place: Place, here: dict[int, Connection]) -> str:
    missing = [str(process) for process in range(1, place.count) if process not in here]
    return f"process{'es' if len(missing) > 1 else ''} {', '.join(missing)}"


def _come(place: Place) -> Meeting:
    deadline, reason = time.monotonic() + place.timeout_s, "no answer"
    while time.monotonic() < deadline:
        try:
            connection = Connection(socket.create_connection((place.host, place.port), timeout=RETRY_S * 10))
        except OSError as error:  # not there yet, or its name not yet known
            reason = error.strerror or "no answer"
            time.sleep(RETRY_S)
            continue
        connection.send(join=place.me, of=place.count, run=place.run, on=socket.gethostname())
        if port := _admitted(place, connection):
            return Meeting({0: connection}, {0: place.host}, port)
        connection.close()  # a predecessor's, which was about to end
        time.sleep(RETRY_S)
    raise LostError(
        f"process 0 was not found at {place.host}:{place.port} within {place.timeout_s:g} s ({reason}), says "
        f"process {place.me}"
    )


def _admitted(place: Place, connection: Connection) -> int | None:
    """The port that process 0 names once all are there; None when it has gone."""
    deadline = time.monotonic() + 2 * place.timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if not selector.select(RETRY_S):
                continue
            messages = connection.receive()
            if messages is None:
                return None
            for message in messages:
                if "refused" in message:
                    connection.close()
                    raise (UsageError if message.get("usage") else LostError)(message["refused"])
                if "go" in message:
                    return message["go"]
    return None


def _listen(host: str, port: int) -> socket.socket:
    if host or not socket.has_dualstack_ipv6():
        return socket.create_server((host, port), backlog=socket.SOMAXCONN)
    with contextlib.suppress(OSError):  # a machine may know IPv6 and have it switched off
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=socket.SOMAXCONN, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=socket.SOMAXCONN)


def _free_port() -> int:
    with socket.create_server(("", 0)) as free:
        return free.getsockname()[1]
