"""Which hosts a request may go to: public ones, and those that the command line names.

Rows, redirects and answers are written by strangers, and this machine reaches what they do not: its own services, its
network, its cloud's metadata. So the rule looks at addresses, which the connection then uses as they were judged (see
`bounds.py`); of a host that a proxy looks up there is only the name to judge.
"""

import dataclasses
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

FLAG = "--allow_private_hosts"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# IPv6 networks whose addresses lead to an IPv4 address, and how many bits stand after it.
_EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
# `ipaddress` counts these as global, and clouds answer there: Oracle's metadata, Azure's wire server.
_CLOUDS = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
# RFC 6761, RFC 6762 (appendix G) and RFC 8375.
_LOCAL_SUFFIXES = (
    *("localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa"),
)


class PrivateHostError(Exception):
    """A request would go into a private network."""


class BadHostError(Exception):
    """What stands for a host cannot be one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """The rule of a run.

    Attributes:
      allow_private: rows may name any host.
      named: hosts that the command line names; they need not be public.
    """

    allow_private: bool = False
    named: frozenset[str] = frozenset()

    def check_addresses(self, host: str, addresses: Iterable[str]) -> None:
        """Judges what a name stands for; one private address is enough, for the others may be asked for next time.

        Raises:
          PrivateHostError: one is in a private network.
        """
        if not self._admits(host) and not all(is_public(address) for address in addresses):
            raise PrivateHostError

    def check_name(self, host: str) -> None:
        """Judges a name that a proxy will look up.

        Raises:
          PrivateHostError: it is a private address, or one of the names that a network gives to its own.
        """
        address = literal(host)
        if not self._admits(host) and (is_local_name(host) if address is None else not is_public(address)):
            raise PrivateHostError

    def after(self, url: str | None) -> "Hosts":
        """The rule for where a row's server redirects to: of what the flag admits, it is the row's own host."""
        return Hosts(named=self.named | named_in(url)) if self.allow_private else self

    def _admits(self, host: str) -> bool:
        return self.allow_private or _plain(host) in self.named


PUBLIC = Hosts()


def named_in(*urls: str | None) -> frozenset[str]:
    """The hosts of URLs that a command line holds."""
    found = set()
    for url in urls:
        try:
            parts = urlsplit(url or "")
            if parts.scheme in ("http", "https") and parts.hostname:
                found.add(_plain(parts.hostname))
        except ValueError:  # its request will fail
            pass
    return frozenset(found)


def is_public(address: str | _Address) -> bool:
    """Whether everybody reaches the same machine at an address."""
    if isinstance(address, str):
        address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in cloud for cloud in _CLOUDS)
    for network, bits_after in _EMBEDDING:
        if address in network:
            return is_public(ipaddress.IPv4Address(int(address) >> bits_after & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST and address.is_global


def is_local_name(host: str) -> bool:
    """Whether a name is of the kind that means something else in every network."""
    name = _plain(host)
    return "." not in name or any(name.endswith(f".{suffix}") for suffix in _LOCAL_SUFFIXES)


def literal(host: str) -> _Address | None:
    """The address that a host's text is, in all forms that a resolver reads: 127.0.0.1, 127.1, 0x7f000001, ::1."""
    name = _plain(host)
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, UnicodeError, ValueError):
        return None


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")
