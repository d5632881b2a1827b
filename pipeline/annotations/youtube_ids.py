"""YouTube ids: their form, what spreadsheets make of them, and the URL."""

import re

from mbt.pipeline.annotations.rows import BadRowError, shown

ID = r"[A-Za-z0-9_-]{11}"
_ID = re.compile(ID)
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAMAGE = (
    (r"#[A-Z/0]+[?!]?", "a spreadsheet took an id that begins with '-' for a formula, and lost it"),
    (r"[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+", "a spreadsheet turned an id into a rounded number"),
    (rf"[0-9]{{1,4}}[-/. ]{_MONTH}(?:[-/. ][0-9]+)?|{_MONTH}[-/. ][0-9]+", "a spreadsheet turned an id into a date"),
    (r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}", "a spreadsheet turned an id into a date"),
    (r"'.*", "the mark by which spreadsheets keep text stands before it"),
    (r"=.*", "a spreadsheet's formula stands in its place"),
    (r"https?://.*", "it is a URL; the id alone belongs here"),
    (r"[A-Za-z0-9_-]{1,10}", "characters are missing, such as a '-' or zeros at its front"),
    (r"[A-Za-z0-9_-]{12,}", "it is too long"),
    (r"", "it is missing"),
)
_CAUSES = tuple((re.compile(pattern), cause) for pattern, cause in _DAMAGE)


def check_id(value: str, column: str) -> None:
    """Refuses what is no id of 11 letters, digits, '-' and '_', with the likely cause."""
    if not _ID.fullmatch(value):
        cause = next((f": {cause}" for pattern, cause in _CAUSES if pattern.fullmatch(value)), "")
        raise BadRowError("bad_youtube_id", f"{shown(value)} is no YouTube id{cause}", column)


def url(youtube_id: str) -> str:
    """Where the video is watched."""
    return f"https://www.youtube.com/watch?v={youtube_id}"
