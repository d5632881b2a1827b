"""Cookies and passwords are used, and told to nobody."""

import os

import pytest
from fake_youtube import Video
from youtube_downloads import ID, SECONDS, failure_of

from mbt.pipeline import youtube
from mbt.pipeline.outcomes import FetchError, StopError


def test_cookies_are_sent_and_their_file_is_not_written(youtube_files, youtube_of, download, tmp_path):
    line = "\t".join((".youtube.com", "TRUE", "/", "TRUE", "2147483647", "SID", "SECRETCOOKIE"))
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    cookies.chmod(0o400)
    before = (cookies.read_bytes(), cookies.stat().st_mtime_ns)
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS)})
    download(fake, cookies=str(cookies))
    assert any("SID=SECRETCOOKIE" in header for header in fake.cookies)
    assert (cookies.read_bytes(), cookies.stat().st_mtime_ns) == before
    assert sorted(tmp_path.rglob("*cookie*")) == [cookies]


@pytest.mark.parametrize("content", [None, "{}", "SECRETCOOKIE", b"\xff\xfe\0"])
def test_unreadable_cookies_stop_the_run(content, youtube_of, download, tmp_path):
    cookies = tmp_path / "cookies.txt"
    if content is not None:
        cookies.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StopError, match=r"cookies\.txt") as stopped:
        download(youtube_of({}), cookies=str(cookies))
    assert "SECRETCOOKIE" not in str(stopped.value)
    assert os.listdir(download.folder) == []


def test_secrets_are_told_to_nobody(youtube_of, download, tmp_path, capfd):
    cookies = tmp_path / "cookies.txt"
    line = "\t".join((".youtube.com", "TRUE", "/", "TRUE", "2147483647", "SID", "SECRETCOOKIE"))
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    says = {"status": "ERROR", "reason": "Odd: SECRETCOOKIE and hunter22 at https://x/?sig=SECRETSIG"}
    fake = youtube_of({ID: Video(playability=says)}, password="somebody:hunter22")
    told = failure_of(download, fake, cookies=str(cookies)).detail
    assert told == "Odd: <hidden> and <hidden> at <address>"
    fake.password, shown = "somebody:other", fake.proxy_url
    settings = youtube.Settings(ffmpeg="ffmpeg", time_limit_s=60, cookies=str(cookies))
    with pytest.raises(FetchError) as raised:
        youtube.download(ID, None, str(download.folder), settings, shown)
    told += str(raised.value) + "".join(capfd.readouterr())
    assert not [secret for secret in ("SECRET", "hunter22", "somebody") if secret in told]
