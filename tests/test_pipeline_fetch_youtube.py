"""`mbt-data` with annotations of YouTube clips, against a YouTube of our own behind a proxy."""

import collections
import json
import subprocess
from pathlib import Path

import pytest
from fake_youtube import FakeYouTube, Fault, Video

from mbt.pipeline import ledger

IDS = ["--PJHxphWEs", "a_b-c_d-e_f", "Gone4567890", "PrivateVid0", "BotCheck000", "Forbidden00", "Mute5678901"]


@pytest.fixture(scope="module")
def films(make_media, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    return {
        "long": make_media(folder / "long.mp4", seconds=45, options=("-g", "50")),
        "mute": make_media(folder / "mute.mp4", seconds=35, audio=None),
    }


@pytest.fixture
def videos(films) -> dict[str, Video]:
    long = {"formats": {18: films["long"]}, "seconds": 45}
    return {
        IDS[0]: Video(**long),
        IDS[1]: Video(**long),
        IDS[2]: lost("ERROR", "This video has been removed by the uploader"),
        IDS[3]: lost("LOGIN_REQUIRED", "Private video. Sign in if you've been granted access to this video"),
        IDS[4]: lost("LOGIN_REQUIRED", "Sign in to confirm you\u2019re not a bot"),
        IDS[5]: Video(**long, faults=(Fault("media", status=403),)),
        IDS[6]: Video(formats={18: films["mute"]}, seconds=35),
    }


def lost(status: str, reason: str) -> Video:
    return Video(playability={"status": status, "reason": reason})


@pytest.fixture
def run(mbt_data):
    def run(folder: Path, fake: FakeYouTube, command: str, *words: str) -> subprocess.CompletedProcess:
        dataset = ["--dataset=audioset", f"--annotations={folder}/eval_segments.csv", f"--output={folder}/out"]
        return mbt_data(command, *dataset, f"--cookies={folder}/cookies", *words, env=fake.environment())

    return run


def write(folder: Path, ids: list[str], end: int = 30) -> None:
    rows = [f'{name}, 20.000, {end}.000, "/m/09x0r,/t/dd00088"' for name in ids]
    (folder / "eval_segments.csv").write_text("\n".join(["# YTID, start_seconds, end_seconds, positive_labels", *rows]))
    (folder / "cookies").write_text(
        "# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t2147483647\tSID\tVERYSECRET\n"
    )


def outcomes(root: Path) -> dict[str, tuple[str, str]]:
    rows = ledger.state(str(root)).to_pylist()
    return {row["clip_id"].removesuffix("_20000"): (row["outcome"], row["reason"]) for row in rows}


def test_audioset_from_youtube(run, videos, tmp_path):
    write(tmp_path, IDS)
    with FakeYouTube(videos) as fake:
        done = run(tmp_path, fake, "build", "--json")
        # Two of seven are refused to us: nothing is published.
        assert done.returncode == 1 and "eval would lack 2 of 7 clips" in done.stderr, done.stderr
        assert not (tmp_path / "out" / "snapshots").exists()
        assert not fake.strangers and any("VERYSECRET" in cookie for cookie in fake.cookies)
    found = outcomes(tmp_path / "out")
    assert found == {
        IDS[0]: ("ok", ""),
        IDS[1]: ("ok", ""),
        IDS[2]: ("gone", "removed_by_uploader"),
        IDS[3]: ("restricted", "private"),
        IDS[4]: ("blocked", "bot_check"),
        IDS[5]: ("blocked", "http_403"),
        IDS[6]: ("unusable", "no_audio"),
    }
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"VERYSECRET" not in path.read_bytes()
    assert "VERYSECRET" not in done.stdout + done.stderr
    media = list((tmp_path / "out" / "media").rglob("*.mp4"))
    assert len(media) == 2  # cut: of a video of 45 s
    assert all(path.stat().st_size < videos[IDS[0]].formats[18].stat().st_size / 2 for path in media)
    with FakeYouTube(videos) as fake:  # again: what is settled is not asked for
        fake.videos |= {IDS[4]: fake.videos[IDS[0]], IDS[5]: fake.videos[IDS[0]]}  # and they are granted now
        done = run(tmp_path, fake, "build", "--json")
        assert done.returncode == 0, done.stderr
        assert fake.counts["watch"] == 3  # the private one is asked again
    split = json.loads(done.stdout)["splits"]["eval"]
    assert split["clips"] == 7 and split["records"] == 4


def test_when_all_proxies_are_refused_the_run_stops(run, films, tmp_path):
    write(tmp_path, [f"proxied{number:04d}" for number in range(20)])
    with FakeYouTube(default=Video(formats={18: films["mute"]}), password="user:PROXYSECRET", refuse_from=1) as fake:
        (tmp_path / "proxies").write_text(f"{fake.proxy_url}\n")
        done = run(tmp_path, fake, "fetch", f"--proxies={tmp_path}/proxies")
    assert done.returncode == 1 and "resting" in done.stderr, done.stderr
    assert {outcome for outcome, _ in outcomes(tmp_path / "out").values()} == {"blocked"}
    assert fake.requests() < 60
    assert "PROXYSECRET" not in done.stdout + done.stderr
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"PROXYSECRET" not in path.read_bytes()


def test_a_storm_on_youtube_loses_nothing(run, films, tmp_path):
    ids = [f"storm{number:06d}" for number in range(40)]
    write(tmp_path, ids, end=22)
    with FakeYouTube(default=Video(formats={18: films["long"]}, seconds=45), refuse_from=60) as fake:
        done = run(tmp_path, fake, "fetch", "--json")
        assert done.returncode == 1 and "stopped early" in done.stderr, done.stderr
        kinds = collections.Counter(outcome for outcome, _ in outcomes(tmp_path / "out").values())
        assert kinds["ok"] >= 5 and set(kinds) == {"ok", "blocked"}
        assert fake.requests() < 150
        fake.refuse_from = None
        done = run(tmp_path, fake, "fetch", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["splits"]["eval"]["ok"] == 40
