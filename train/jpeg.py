"""The size that a JPEG's header states, so that a frame that cannot be decoded is found before it is."""

_START = b"\xff\xd8"
_END = b"\xff\xd9"
_SCAN = 0xDA
# Frame headers: SOF0 to SOF15, among which three markers mean something else.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def size(data: bytes) -> tuple[int, int] | None:
    """Height and width in pixels; None of what does not begin and end as a JPEG or has no frame header."""
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    at = len(_START)
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] in _FRAME_HEADERS:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
