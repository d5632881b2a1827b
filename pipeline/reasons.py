"""Why media give no clip: ffmpeg's complaints as reasons."""

import re

RULES = 2  # version of the rules by which a clip is unusable: what an older one refused is tried once more

# The first pattern found among ffmpeg's complaints names the reason. Causes stand before consequences.
_REASONS = (
    (re.compile(r"exceeds specified max pixel count"), "too_many_pixels"),
    (re.compile(r"not in allowed list|not on whitelist"), "format_not_allowed"),
    (re.compile(r"\[out#0/(?:image2pipe|rawvideo)\] .*Output file does not contain any stream"), "no_video"),
    (re.compile(r"\[out#1/s16le\] .*Output file does not contain any stream"), "no_audio"),
    (re.compile(r"detected only with low score"), "not_media"),  # by its name only
    (re.compile(r"moov atom not found|partial file"), "truncated"),
    (re.compile(r"No such file or directory|Permission denied|Is a directory"), "missing"),
    (re.compile(r"[Nn]o decoder found|Decoder .* not found|unknown codec"), "unknown_codec"),
    (re.compile(r"Error opening input"), "not_media"),
    (re.compile(r"Decode error rate .* exceeds maximum"), "decode_errors"),
)
# In our words where ffmpeg's differ from run to run: how many packets it read depends on how its threads took turns.
_DETAILS = {
    "no_video": "the media has no pictures",
    "no_audio": "the media has no sound",
    "decode_errors": "too many packets of a stream do not decode",
}
# After the names of components and before any text: titles and the like, which follow [info], are not complaints.
_COMPLAINT = re.compile(r"(?:\[[^\]]*\] )*?\[(?:warning|error|fatal|panic)\] ")
_ENCRYPTED = re.compile(r"^\[info\] +Encryption initialization data:|\((?:encv|enca) / ", re.MULTILINE)
_NOISE = re.compile(r" @ 0x[0-9a-f]+")


class UnusableError(ValueError):
    """The media can never become a record; the same bytes give the same reason everywhere."""

    def __init__(self, reason: str, detail: str = "", rule: int = RULES):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.rule = rule


def failure(returncode: int, log: str) -> UnusableError:
    """The reason that the log of a pass names which gave no clip."""
    complaints = [_NOISE.sub("", line) for line in log.splitlines() if _COMPLAINT.match(line)]
    if _ENCRYPTED.search(log):
        return UnusableError("encrypted", "a stream is encrypted")
    for pattern, reason in _REASONS:
        for complaint in complaints:
            if pattern.search(complaint):
                return UnusableError(reason, _DETAILS.get(reason) or _short(complaint))
    if returncode == 0:
        return UnusableError("no_frames_or_sound", "a stream decodes to nothing")
    # The order of complaints is that of ffmpeg's threads: one is named that is the same each time.
    return UnusableError("decode_failed", _short(min(complaints)) if complaints else f"ffmpeg ended with {returncode}")


def _short(line: str) -> str:
    return line.strip()[:200]
