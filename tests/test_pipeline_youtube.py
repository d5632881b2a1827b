"""Real yt-dlp, deno and ffmpeg against `fake_youtube.py`, through a real proxy and real TLS on loopback."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import disk_faults
import psutil
import pytest
from fake_youtube import ITAGS, Fault, Video
from youtube_downloads import ID, SECONDS, failure_of, frames

from mbt.pipeline import youtube
from mbt.pipeline.outcomes import StopError
from mbt.schemas.clip import Outcome


@pytest.mark.parametrize(
    "source",
    [
        f"https://www.youtube.com/watch?v={ID}",
        f"http://youtube.com/watch?v={ID}&t=30s",
        f"https://m.youtube.com/watch?feature=share&v={ID}#t=3",
        f"HTTPS://WWW.YouTube.com/watch?v={ID}",
        f"https://music.youtube.com/watch?v={ID}&list=RDAMVM",
        f"https://youtu.be/{ID}",
        f"https://youtu.be/{ID}?t=5",
        f"https://www.youtube.com/shorts/{ID}",
        f"https://www.youtube.com/embed/{ID}?start=1",
        f"https://www.youtube-nocookie.com/embed/{ID}",
        f"https://www.youtube.com/live/{ID}",
        f"https://www.youtube.com/v/{ID}",
        f"https://www.youtube.com:443/watch?v={ID}",
    ],
)
def test_video_id(source):
    assert youtube.video_id(source) == ID


@pytest.mark.parametrize(
    "source",
    [
        *("", ID, f"www.youtube.com/watch?v={ID}", f"ftp://youtube.com/watch?v={ID}", f"file:///watch?v={ID}"),
        f"https://youtube.com.example.com/watch?v={ID}",
        f"https://example.com/watch?v={ID}",
        f"https://youtube.com@example.com/watch?v={ID}",
        f"https://user:password@www.youtube.com/watch?v={ID}",
        f"https://www.youtube.com:8080/watch?v={ID}",
        f"https://www.youtube.com:x/watch?v={ID}",
        f"https://www.youtube.com/watch?v={ID}x",
        f"https://www.youtube.com/watch?v={ID[:-1]}",
        f"https://www.youtube.com/watch?v={ID}&v=other567890",
        "https://www.youtube.com/watch?v=../../../a",
        "https://www.youtube.com/watch?v=a%20b$(x)%0ac",
        f"https://www.youtube.com/watch?v={ID}\n",
        f"https://www.youtube.com/wat\tch?v={ID}",
        f" https://www.youtube.com/watch?v={ID}",
        f"https://www.youtube.com/watch?v={ID}\0",
        "https://www.youtube.com/watch?v=аB-_567890x",  # noqa: RUF001 - a Cyrillic letter
        f"https://www.youtube.com/playlist?list={ID}",
        f"https://www.youtube.com/embed/{ID}/more",
        f"https://www.youtube.com/@{ID}",
        f"https://youtu.be/{ID}/x",
        f"https://[::1/watch?v={ID}",
    ],
)
def test_hostile_or_other_urls_have_no_video_id(source):
    assert youtube.video_id(source) is None


def test_only_ids_are_downloaded(ffmpeg_program, tmp_path):
    for wrong in ("", "--exec=x", "../../../ab", f"{ID}\n", f"https://youtu.be/{ID}"):
        with pytest.raises(ValueError, match="not the id"):
            youtube.download(wrong, None, str(tmp_path), youtube.Settings(ffmpeg=ffmpeg_program))


def test_settings_are_checked(ffmpeg_program):
    with pytest.raises(ValueError, match="'half'"):
        youtube.Settings(ffmpeg=ffmpeg_program, download="half")


def test_one_file_is_taken_where_there_is_one(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats=youtube_files, seconds=SECONDS)})
    counted = []
    done = download(fake, on_bytes=counted.append)
    assert os.listdir(download.folder) == [os.path.basename(done.path)]
    assert Path(done.path).read_bytes() == youtube_files[18].read_bytes()
    assert (done.starts_at_us, done.bytes, sum(counted)) == (
        0,
        youtube_files[18].stat().st_size,
        youtube_files[18].stat().st_size,
    )
    assert done.tools.startswith("yt-dlp 20") and "deno" in done.tools
    assert fake.counts == {"watch": 1, "player": 1, "media": 1}
    assert fake.strangers == []


def test_two_files_are_joined_and_keep_their_times(youtube_files, youtube_of, download, ffmpeg_program):
    fake = youtube_of({ID: Video(formats={itag: youtube_files[itag] for itag in (134, 140)}, seconds=SECONDS)})
    done = download(fake)
    assert os.listdir(download.folder) == [os.path.basename(done.path)]
    # Two frames of 134.mp4 are stored out of order and nothing says so: it begins at 0.08 s, the sound at 0.
    pictures, sounds = frames(ffmpeg_program, youtube_files[134]), frames(ffmpeg_program, youtube_files[140], "a")
    late_us = 80_000
    assert frames(ffmpeg_program, done.path) == [(time_us + late_us, digest) for time_us, digest in pictures]
    assert frames(ffmpeg_program, done.path, "a") == sounds
    assert download(fake).bytes == done.bytes


def test_what_ffmpeg_says_of_a_disk_decides_nothing(youtube_files, youtube_of, download, ffmpeg_program, tmp_path):
    fake = youtube_of({ID: Video(formats={itag: youtube_files[itag] for itag in (134, 140)}, seconds=SECONDS)})
    program = tmp_path / "ffmpeg"
    words = 'case "$*" in *merged.mp4*) echo "title: No space left on device" >&2; exit 1;; esac'
    program.write_text(f'#!/bin/sh\n{words}\nexec {ffmpeg_program} "$@"\n')
    program.chmod(0o755)
    failure = failure_of(download, fake, ffmpeg=str(program))
    assert (failure.outcome, failure.reason) == (Outcome.TRANSIENT, "not_media")


@pytest.mark.skipif(bool(disk_faults.why_no_mounts()), reason=disk_faults.why_no_mounts() or "-")
def test_a_disk_that_does_not_take_the_joined_file_stops_the_run(youtube_files, youtube_of, download, ffmpeg_program):
    formats = {itag: youtube_files[itag] for itag in (134, 140)}
    fake = youtube_of({ID: Video(formats=formats, seconds=SECONDS)})
    room = sum(path.stat().st_size for path in formats.values()) + (48 << 10)
    with disk_faults.small_disk(download.folder, f"size={room}"), pytest.raises(StopError, match="No space left on"):
        download(fake)
    assert fake.counts["media"] == 2


def test_scripts_are_solved_by_deno(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, challenges=True)})
    assert download(fake).bytes == youtube_files[18].stat().st_size
    assert fake.counts["script"] == 1


def test_a_missing_deno_stops_the_run():
    code = (
        "import sys; sys.modules['deno'] = None\n"
        "from mbt.pipeline import outcomes, youtube_process\n"
        "try: youtube_process.deno()\n"
        "except outcomes.StopError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install deno" in done.stderr


def test_a_missing_ffmpeg_stops_the_run(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={itag: youtube_files[itag] for itag in (134, 140)}, seconds=SECONDS)})
    for mode in ("whole", "range"):
        with pytest.raises(StopError, match="ffmpeg"):
            download(fake, ffmpeg="/nonexistent/ffmpeg", download=mode)
    assert os.listdir(download.folder) == []


@pytest.mark.parametrize(
    ("kind", "itag", "fine"),
    [
        ("video/mp4", "../../../evil", True),
        ("video/mp4", "e" * 300, True),
        ("video/../../evil", "18x", False),
        ("video/x-msdos-program", "18x", False),
    ],
)
def test_names_that_lead_out_of_the_folder(
    kind, itag, fine, youtube_files, youtube_of, download, tmp_path, monkeypatch
):
    monkeypatch.setitem(ITAGS, itag, (f'{kind}; codecs="avc1.42001E, mp4a.40.2"', 640, 360, True))
    before = sorted(tmp_path.parent.rglob("*"))
    fake = youtube_of({ID: Video(formats={itag: youtube_files[18]}, seconds=SECONDS)})
    if fine:
        os.remove(download(fake).path)
    else:
        assert failure_of(download, fake).reason == "extractor_broke"
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_the_environments_proxy_is_used(youtube_files, youtube_of, ffmpeg_program, tmp_path, monkeypatch):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS)})
    monkeypatch.setenv("HTTPS_PROXY", fake.proxy_url)
    for mode in ("whole", "range"):
        settings = youtube.Settings(ffmpeg=ffmpeg_program, time_limit_s=60, download=mode)
        assert youtube.download(ID, (4_000_000, 6_000_000), str(tmp_path), settings).bytes


def test_many_at_a_time(youtube_files, youtube_of, download):
    fake = youtube_of(default=Video(formats={18: youtube_files[18]}, seconds=SECONDS))
    ids = [f"many{number:07d}" for number in range(12)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda video: download(fake, video), ids))
    assert len({found.path for found in done}) == len(os.listdir(download.folder)) == len(ids)
    assert {Path(found.path).read_bytes() for found in done} == {youtube_files[18].read_bytes()}


def test_nothing_outlives_a_parent_that_is_killed(youtube_files, youtube_of, ffmpeg_program, tmp_path):
    stall = Fault("media", "stall")
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, faults=(stall,))})
    code = (
        "import sys; from mbt.pipeline import youtube\n"
        f"youtube.download({ID!r}, None, sys.argv[1], youtube.Settings(ffmpeg=sys.argv[2]), sys.argv[3])"
    )
    words = [sys.executable, "-c", code, str(tmp_path), ffmpeg_program, fake.proxy_url]
    with subprocess.Popen(words, env=os.environ | {"SSL_CERT_FILE": fake.ca_file}) as parent:
        while not fake.counts["media"]:
            time.sleep(0.02)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children and os.listdir(tmp_path)
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=300)
    assert not alive
    assert os.listdir(tmp_path) == []


def test_classify_needs_no_yt_dlp():
    code = "import sys, mbt.pipeline.outcomes as it; it.classify(OSError(5)); sys.exit('yt_dlp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
