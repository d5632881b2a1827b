"""`mbt-data purge` and media: no file below ROOT shows a frame or plays a tenth of a second of a purged clip."""

import contextlib
import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import purge_films
import pytest
from media_server import PRIVATE

from mbt.pipeline import extent, ledger, leftovers, tombstones
from mbt.pipeline.verify import ALL, VerifyOptions, verify
from mbt.schemas import index as shard_index
from mbt.schemas import tfrecord
from mbt.schemas.holder import Holder
from mbt.schemas.manifest import Manifest

FILMS = {
    "one.mp4": ("-c:v", "libx264", "-g", "9999", "-preset", "ultrafast", "-c:a", "aac"),
    "whole.webm": ("-c:v", "libvpx", "-g", "9999", "-deadline", "realtime", "-c:a", "libopus"),
    "often.mp4": ("-c:v", "libx264", "-g", "25", "-preset", "ultrafast", "-c:a", "aac"),
}
# Where the other clip begins. A cut begins a second before it, and then at a key frame.
NEXT = {"one.mp4": 6.5, "whole.webm": 6.5, "often.mp4": 8.5}
FIRST = {name: 14 * place for place, name in enumerate(FILMS)}  # second of all films, each of which is 14 s long


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/403/"):
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def films(ffmpeg_program, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, options in FILMS.items():
        purge_films.make(ffmpeg_program, folder / name, *options, first=FIRST[name])
    return folder


@pytest.fixture(scope="module")
def url(films):
    """Where the films are served, for as long as the module's tests run."""
    handler = functools.partial(_Handler, directory=str(films))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def row(url: str, name: str, clip_id: str, start: float, end: float, label: str = "all") -> dict:
    return {"video_path": f"{url}/{name}", "start": start, "end": end, "label": label, "split": "train", "id": clip_id}


class Dataset:
    """A dataset in a folder, and the commands on it."""

    def __init__(self, folder: Path, mbt_data, write_csv):
        self.folder = folder
        self.root = folder / "out"
        self.run = mbt_data
        self.write_csv = write_csv

    def build(self, *rows: dict, command: str = "build", status: int = 0, flags: tuple[str, ...] = ()) -> dict:
        self.write_csv(self.folder / "clips.csv", list(rows))
        words = [f"--annotations={self.folder}/clips.csv", f"--output={self.root}", "--name=films", PRIVATE]
        words += ["--num_shards=1"] if command == "build" else []
        done = self.run(command, *words, "--json", *flags)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if done.stdout else {}

    def purge(self, *clip_ids: str, flags: tuple[str, ...] = ("--yes",)):
        (self.folder / "ids.txt").write_text("".join(f"{clip_id}\n" for clip_id in clip_ids))
        return self.run("purge", f"--output={self.root}", f"--clips={self.folder}/ids.txt", "--reason=r", *flags)

    def stored(self) -> list[Path]:
        return sorted((self.root / "media").rglob("*.*")) if (self.root / "media").exists() else []

    def payloads(self) -> dict[str, bytes]:
        """The records of the newest snapshot."""
        newest = max((self.root / "snapshots").iterdir(), key=lambda path: path.stat().st_ctime)
        found = {}
        for split in Manifest.from_json((newest / "manifest.json").read_text()).splits.values():
            for shard in split.shards:
                data = (self.root / shard.path).read_bytes()
                index = shard_index.load((self.root / shard.index_path).read_bytes())
                for clip_id, place in zip(index.ids, index.records, strict=True):
                    found[clip_id] = data[int(place["offset"]) :][: int(place["length"])]
        return found

    def words(self) -> dict[str, dict]:
        """The ledger's newest on each clip."""
        return {word["clip_id"]: word for word in ledger.state(str(self.root)).to_pylist()}


@pytest.fixture
def dataset(tmp_path, mbt_data, write_csv) -> Dataset:
    return Dataset(tmp_path, mbt_data, write_csv)


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory, mbt_data, write_csv, url) -> Path:
    """Of each film a clip from 0 to 5 s and one that begins later."""
    there = Dataset(tmp_path_factory.mktemp("two"), mbt_data, write_csv)
    rows = [
        row(url, name, f"{name}-{'next' if start else 0}", start, 5 if not start else 11)
        for name in FILMS
        for start in (0, NEXT[name])
    ]
    there.build(*rows)
    return there.folder


@pytest.fixture
def two(two_clips, tmp_path, mbt_data, write_csv) -> Dataset:
    return Dataset(Path(shutil.copytree(two_clips, tmp_path / "two")), mbt_data, write_csv)


def both(url: str, name: str, **second) -> tuple[dict, dict]:
    return row(url, name, f"{name}-0", 0, 5), row(url, name, f"{name}-next", NEXT[name], 11) | second


def frames_of(film: str, start: float = 0, end: float = 5) -> set[int]:
    return set(range(round(25 * (FIRST[film] + start)), round(25 * (FIRST[film] + end))))


def tenths_of(film: str, start: float = 0, end: float = 5) -> set[int]:
    return set(range(round(10 * (FIRST[film] + start)), round(10 * (FIRST[film] + end))))


def check_nothing_left(program: str, root: Path, *films: str) -> None:
    """Of the clips from 0 to 5 s."""
    shown, heard = purge_films.everything(program, root)
    for film in films:
        assert not shown & frames_of(film) and not heard & tenths_of(film)


def test_the_reader_reads(films, ffmpeg_program):
    """The tests below would pass of themselves if it did not."""
    for name in FILMS:
        assert purge_films.numbers(ffmpeg_program, films / name) == frames_of(name, 0, 14)
        assert len(purge_films.tenths(ffmpeg_program, films / name) & tenths_of(name, 0, 14)) >= 134


@pytest.mark.parametrize("film", FILMS)
def test_media_of_a_neighbour_that_hold_the_time_are_released(two, film, ffmpeg_program, tmp_path):
    """One key frame before both, and a film that is kept whole; where there is a key frame between them media stay."""
    before, words, files = two.payloads(), two.words(), two.stored()
    neighbour = f"{film}-next"
    path = two.root / words[neighbour]["media"]
    holds = film != "often.mp4"
    shown, heard = purge_films.everything(ffmpeg_program, path.parent)
    assert holds == bool(shown & frames_of(film)) == bool(heard & tenths_of(film))
    done = two.purge(f"{film}-0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none is left" in done.stdout
    assert ("1 media files of clips that stay hold a part of that time" in done.stdout) == holds
    assert path.exists() != holds
    assert len(two.stored()) == len(files) - 1 - holds
    check_nothing_left(ffmpeg_program, two.root, film)
    assert two.payloads() == {clip_id: data for clip_id, data in before.items() if clip_id != f"{film}-0"}
    after = two.words()[neighbour]
    assert after["signature"] == (ledger.RELEASED if holds else "")
    assert (after["digest"], after["media"], after["outcome"]) == (
        words[neighbour]["digest"],
        words[neighbour]["media"],
        "ok",
    )
    assert verify(VerifyOptions(root=str(two.root), snapshot=ALL)).problems == ()


def test_of_several_films_at_once(two, ffmpeg_program):
    """What stays is all there."""
    assert two.purge(*(f"{film}-0" for film in FILMS)).returncode == 0
    check_nothing_left(ffmpeg_program, two.root, *FILMS)
    shown, _ = purge_films.everything(ffmpeg_program, two.root)
    assert all(shown >= frames_of(film, NEXT[film] + 0.1, 10.9) for film in FILMS)


def test_a_whole_mp4_of_which_each_clip_was_fetched_alone(dataset, url, ffmpeg_program, tmp_path):
    first, second = both(url, "often.mp4")
    dataset.build(first)
    dataset.build(first, second)
    assert [path.stat().st_size for path in dataset.stored()] == [dataset.stored()[0].stat().st_size] * 2
    assert dataset.purge("often.mp4-0").returncode == 0
    assert dataset.stored() == []
    check_nothing_left(ffmpeg_program, dataset.root, "often.mp4")


@pytest.mark.parametrize("film", ["one.mp4", "whole.webm"])
def test_a_later_build_keeps_nothing_that_holds_the_time(two, film, url, ffmpeg_program, tmp_path):
    """Labels change without media; another span is fetched, and its media go with the command."""
    assert two.purge(f"{film}-0").returncode == 0
    relabelled = two.build(*both(url, film, label="other"))
    assert (relabelled["clips_decoded"], relabelled["splits"]["train"]["records"]) == (0, 1)
    moved = two.build(*both(url, film, start=7.5, id="moved"))
    assert (moved["clips_decoded"], moved["splits"]["train"]["records"]) == (1, 1)
    assert moved["splits"]["train"]["lost"] == {"invalid/purged": 1}
    assert two.words()["moved"]["signature"] == ledger.RELEASED
    assert not (two.root / "tmp").exists()
    check_nothing_left(ffmpeg_program, two.root, film)
    again = two.build(*both(url, film, start=7.5, id="moved"))
    assert (again["shards_built"], again["splits"]["train"]["records"]) == (0, 1)
    assert verify(VerifyOptions(root=str(two.root), snapshot=ALL)).problems == ()


def test_what_fetch_alone_brings_goes_too_and_a_build_fetches_it_again(two, url, ffmpeg_program, tmp_path):
    assert two.purge("one.mp4-0").returncode == 0
    late = row(url, "one.mp4", "one.mp4-late", 11.5, 13)
    two.build(late, command="fetch")
    assert not (two.root / "tmp").exists()
    check_nothing_left(ffmpeg_program, two.root, "one.mp4")
    assert two.build(late)["splits"]["train"]["records"] == 1
    check_nothing_left(ffmpeg_program, two.root, "one.mp4")


def test_a_build_that_is_given_up_keeps_nothing_either(two, url, ffmpeg_program):
    assert two.purge("one.mp4-0").returncode == 0
    late = row(url, "one.mp4", "late", 11.5, 13)
    two.build(late, row(url, "403/refused.mp4", "refused", 0, 1), status=1)
    assert two.words()["late"]["signature"] == ledger.RELEASED
    check_nothing_left(ffmpeg_program, two.root, "one.mp4")
    assert not list((two.root / "tmp").rglob("*.mp4"))


def test_media_that_do_not_hold_the_time_are_kept_as_ever(two, url):
    assert two.purge("often.mp4-0").returncode == 0
    before = set(two.stored())
    rows = [row(url, "often.mp4", name, start, end) for name, start, end in (("x", 7.5, 9), ("y", 11, 12))]
    two.build(*rows)
    assert len(set(two.stored()) - before) == 2


@pytest.mark.parametrize("start", [4.999, 2.0])
def test_a_clip_that_overlaps_is_named_and_goes_only_if_that_is_said(dataset, url, ffmpeg_program, start):
    dataset.build(row(url, "often.mp4", "a", 0, 5), row(url, "often.mp4", "b", start, 11))
    before = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file() and path.name != ".writer"}
    dry = dataset.purge("a", flags=())
    assert dry.returncode == 0 and "1 other clips show a part of the same time of the same source: b." in dry.stdout
    assert dry.stdout.endswith("nothing was changed: add --overlapping=drop, then --yes\n")
    done = dataset.purge("a")
    assert done.returncode == 1 and ": b. They are in the way: --overlapping=drop" in done.stdout
    assert done.stdout.endswith("nothing was changed: add --overlapping=drop\n")
    assert {path: path.read_bytes() for path in before} == before
    done = dataset.purge("a", flags=("--yes", "--overlapping=drop"))
    assert done.returncode == 0, done.stdout
    assert "go too: b" in done.stdout and "none is left" in done.stdout
    check_nothing_left(ffmpeg_program, dataset.root, "often.mp4")
    assert dataset.purge("a").returncode == 0  # what is gone is not in the way


def test_a_clip_that_overlaps_one_that_went_along_stays_and_that_is_said(dataset, url):
    """Its frames are those of a time that nobody named."""
    spans = {"a": (0, 5), "b": (4, 8), "c": (7, 11)}
    dataset.build(*(row(url, "often.mp4", clip_id, *span) for clip_id, span in spans.items()))
    done = dataset.purge("a", flags=("--yes", "--overlapping=drop"))
    assert done.returncode == 0 and "clip c, which stays, holds the same bytes in 25 places: it shows" in done.stdout
    assert "for its overlap alone, and none of the named clips' time" in done.stdout
    assert done.stdout.endswith("none is left but what stays\n")
    assert set(dataset.payloads()) == {"c"}


def test_a_cut_elsewhere_in_a_film_that_was_found_by_its_look_is_stored(dataset, films, url, ffmpeg_program):
    again = [ffmpeg_program, "-v", "error", "-y", "-i", str(films / "one.mp4"), "-g", "25", "-c:a", "aac"]
    subprocess.run([*again, str(films / "keyed.mp4")], check=True)
    dataset.build(row(url, "one.mp4", "a", 2, 5), row(url, "keyed.mp4", "k", 7, 11))
    assert "1 more held a part of it" in dataset.purge("a").stdout
    made = dataset.build(row(url, "keyed.mp4", "x", 8.5, 10), row(url, "keyed.mp4", "y", 11, 13))
    assert made["splits"]["train"]["records"] == 2 and len(dataset.stored()) == 2
    shown, heard = purge_films.everything(ffmpeg_program, dataset.root)
    assert shown and not shown & frames_of("one.mp4", 2, 5) and not heard & tenths_of("one.mp4", 2, 5)


def test_ten_of_those_that_overlap_are_named(dataset, url):
    rows = [row(url, "often.mp4", f"b{n:02}", 4.5 + n / 100, 9) for n in range(12)]
    dataset.build(row(url, "often.mp4", "a", 0, 5), *rows)
    done = dataset.purge("a")
    assert done.returncode == 1 and "12 other clips" in done.stdout and "b09 and 2 more" in done.stdout


@pytest.mark.parametrize(
    ("name", "start", "end", "is_banned"),
    [
        ("often.mp4", 0.001, 5.001, True),
        ("./often.mp4", 0, 5, True),
        ("%6Fften.mp4#t", 1, 3, True),
        ("often.mp4", 3, 5.9, True),  # most of its own time
        ("often.mp4", 0, 14, True),  # all of the purged clip's
        ("often.mp4", 4, 9, False),
        ("often.mp4", 5, 9, False),
        ("whole.webm", 0, 5, False),
    ],
)
def test_a_tombstone_bans_its_time_under_another_id(two, url, name, start, end, is_banned):
    tombstones.add(
        str(two.root), {"x": [tombstones.Span(source=f"{url}/often.mp4", start_us=0, end_us=5_000_000)]}, "r"
    )
    other = row(url, "often.mp4", "other", 12, 13)
    made = two.build(other, row(url, name, "new", start, end), flags=("--keep_media=no",))
    lost = made["splits"]["train"]["lost"]
    assert lost == ({"invalid/purged": 1} if is_banned else {})


def test_tombstones_of_an_older_version_ban_the_time_too(two, url):
    """They say the id alone; what its time was the ledger knows."""
    said = {"clips": {"often.mp4-0": {"time": "2026-01-01T00:00:00+00:00", "reason": "old"}}}
    (two.root / "tombstones.json").write_text(json.dumps(said))
    made = two.build(row(url, "often.mp4", "new", 0.001, 5.001), row(url, "often.mp4", "other", 12, 13))
    assert made["splits"]["train"]["lost"] == {"invalid/purged": 1}
    assert two.purge("often.mp4-0").returncode == 0
    (said,) = json.loads((two.root / "tombstones.json").read_text())["clips"].values()
    assert said["reason"] == "old" and said["spans"][0]["end_us"] == 5_000_000


def test_the_same_film_under_another_name(dataset, films, url, ffmpeg_program):
    """Its media are found by what they show, whatever they are called; and a clip of the same bytes is refused."""
    shutil.copy(films / "one.mp4", films / "twin.mp4")
    dataset.build(row(url, "one.mp4", "a", 0, 5), row(url, "one.mp4", "b", 6.5, 11), row(url, "twin.mp4", "c", 7, 11))
    done = dataset.purge("a")
    assert done.returncode == 0 and "1 more held a part of it, and are released" in done.stdout
    assert dataset.stored() == []
    assert {clip_id for clip_id, word in dataset.words().items() if word["signature"]} == {"b", "c"}
    assert set(dataset.payloads()) == {"b", "c"}


def test_the_same_bytes_under_another_name_are_refused(dataset, films, url):
    shutil.copy(films / "one.mp4", films / "again.mp4")
    dataset.build(row(url, "one.mp4", "a", 0, 5))
    assert dataset.purge("a").returncode == 0
    made = dataset.build(row(url, "again.mp4", "new", 0, 5), row(url, "often.mp4", "other", 12, 13))
    assert made["splits"]["train"]["lost"] == {"invalid/purged": 1}


def test_a_film_that_was_coded_anew_is_found_by_its_look_and_sound(dataset, films, url, ffmpeg_program):
    """No packet is the same; pictures alone tell it, and sound alone. It can be left out, and that is said."""
    silent, blind = films / "silent.mp4", films / "blind.mp4"
    again = [ffmpeg_program, "-v", "error", "-y", "-i", str(films / "one.mp4")]
    other = ["-f", "lavfi", "-i", "sine=frequency=500", "-shortest", "-map", "0:v", "-map", "1:a", "-crf", "30"]
    subprocess.run([*again, *other, "-g", "9999", str(silent)], check=True)
    other = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-shortest", "-map", "1:v", "-map", "0:a"]
    subprocess.run([*again, *other, "-g", "9999", "-c:a", "libmp3lame", str(blind)], check=True)
    rows = [row(url, "silent.mp4", "s", 7, 11), row(url, "blind.mp4", "b", 7, 11), row(url, "whole.webm", "w", 0, 5)]
    dataset.build(row(url, "one.mp4", "a", 0, 5), *rows)
    shutil.copytree(dataset.root, dataset.folder / "again")
    done = dataset.purge("a", flags=("--yes", "--search=source"))
    assert done.returncode == 0 and "3 media files of other sources were not decoded" in done.stdout
    assert len(dataset.stored()) == 3
    dataset.root = dataset.folder / "again"
    done = dataset.purge("a")
    assert done.returncode == 0 and "2 more held a part of it, and are released" in done.stdout
    assert dataset.stored() == [dataset.root / dataset.words()["w"]["media"]]


def test_where_media_were_not_kept_records_tell_what_to_look_for(dataset, films, url, ffmpeg_program):
    """The film has another digest under its other name."""
    words = [ffmpeg_program, "-v", "error", "-y", "-i", films / "one.mp4", "-c", "copy", films / "kept.mkv"]
    subprocess.run([str(word) for word in words], check=True)
    one = row(url, "one.mp4", "a", 0, 5)
    dataset.build(one, flags=("--keep_media=no",))
    dataset.build(one, row(url, "kept.mkv", "k", 7, 11))
    assert len(dataset.stored()) == 1
    done = dataset.purge("a")
    assert done.returncode == 0 and "1 more held a part of it" in done.stdout, done.stdout
    assert dataset.stored() == []


def test_what_was_found_by_its_look_is_not_stored_again_from_elsewhere(dataset, films, url, ffmpeg_program):
    """Neither at its own URL nor as the same bytes at another; other parts of it still give records."""
    again = [ffmpeg_program, "-v", "error", "-y", "-i", str(films / "one.mp4")]
    webm = ["-c:v", "libvpx", "-g", "9999", "-deadline", "realtime", "-c:a", "libopus", str(films / "other.webm")]
    subprocess.run([*again, *webm], check=True)
    shutil.copy(films / "other.webm", films / "third.webm")
    kept = row(url, "other.webm", "w", 7, 11)
    dataset.build(row(url, "one.mp4", "a", 2, 5), kept)
    done = dataset.purge("a")
    assert done.returncode == 0 and "1 more held a part of it, and are released" in done.stdout
    (span,) = json.loads((dataset.root / "tombstones.json").read_text())["found"]
    assert span["source"].endswith("other.webm")
    assert abs(span["start_us"] - 2_000_000) < 200_000 and abs(span["end_us"] - 5_000_000) < 200_000
    names = ("other.webm", "third.webm")
    rows = [row(url, name, f"{name}-{at}", at, at + 0.3 if at < 5 else 12) for name in names for at in (4.999, 9.5)]
    banned = [row(url, name, f"{name}-2", 2.5, 4.5) for name in names]
    made = dataset.build(kept, *rows, *banned)
    assert made["splits"]["train"]["lost"] == {"invalid/purged": 2}
    assert {"w", "other.webm-9.5", "third.webm-9.5"} <= set(dataset.payloads())
    assert dataset.stored() == []
    shown, heard = purge_films.everything(ffmpeg_program, dataset.root / "media")
    assert not shown and not heard


def test_a_film_that_lies_where_no_purge_deletes(two, films):
    (two.root / "notes").mkdir()
    shutil.copy(films / "one.mp4", two.root / "notes/copy.mp4")
    done = two.purge("one.mp4-0")
    assert done.returncode == 1 and "left: notes/copy.mp4 shows or plays a part of it" in done.stdout


# Kills itself before the n-th change of a file.
_KILLED = """
import os, signal, sys
from mbt.pipeline import purge

def killing(function, left=[int(sys.argv[3])]):
    def call(*arguments, **named):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

for name in ("replace", "unlink", "rmdir"):
    setattr(os, name, killing(getattr(os, name)))
purge.purge(purge.PurgeOptions(root=sys.argv[1], clip_ids=frozenset({sys.argv[2]}), reason="r", delete=True))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(two, ffmpeg_program, tmp_path):
    film, ends = "one.mp4", []
    for moment in range(0, 60, 4):
        root = Path(shutil.copytree(two.root, tmp_path / f"killed-{moment}"))
        words = [sys.executable, "-W", "ignore", "-c", _KILLED, root, f"{film}-0", str(moment)]
        status = subprocess.run([str(word) for word in words], check=False, capture_output=True).returncode
        ends.append(status)
        done = two.run("purge", f"--output={root}", f"--clips={_ids(tmp_path, film)}", "--reason=r", "--yes")
        assert done.returncode == 0 and "none is left" in done.stdout, (moment, done.stdout)
        check_nothing_left(ffmpeg_program, root, film)
        (neighbour,) = (word for word in ledger.state(str(root)).to_pylist() if word["clip_id"] == f"{film}-next")
        assert neighbour["signature"] == ledger.RELEASED
        assert verify(VerifyOptions(root=str(root), snapshot=ALL)).problems == ()
        if status == 0:
            break
    assert ends[-1] == 0 and len(ends) > 5 and set(ends[:-1]) == {-9}


def _ids(folder: Path, film: str) -> Path:
    path = folder / "killed.txt"
    path.write_text(f"{film}-0\n")
    return path


def test_pictures_of_training_runs(two, tmp_path):
    """Those of batches go, and the numbers stay; a run that goes on is left alone, and nothing is done."""
    workdir = tmp_path / "runs/a/tensorboard"
    workdir.mkdir(parents=True)
    events = [b"version", b"a number", b"seen \x89PNG\r\n\x1a\n and more", b"another"]
    framed = [b"".join((header, event, footer)) for event in events for header, footer in [tfrecord.frame(event)]]
    path = workdir / "events.out.tfevents.1"
    path.write_bytes(b"".join(framed) + framed[2][:-3])
    (tmp_path / "runs/a/lock").touch()
    dry = two.purge("one.mp4-0", flags=(f"--workdirs={tmp_path}/runs",))
    assert f"1 files of training runs lose their pictures: {path}" in dry.stdout
    flags = ("--yes", f"--workdirs={tmp_path}/runs")
    with held(tmp_path / "runs/a/lock"):
        done = two.purge("one.mp4-0", flags=flags)
    assert done.returncode == 2 and "training run" in done.stderr and not (two.root / "tombstones.json").exists()
    by_name = tmp_path / "runs/a/lock.held"  # of a run on a file system that has no flock
    for holder in (Holder.this_process(by_kernel=False).to_json(), b""):
        by_name.write_bytes(holder)
        done = two.purge("one.mp4-0", flags=flags)
        assert done.returncode == 2 and f"training run ({'process' if holder else 'an unknown'}" in done.stderr
    by_name.write_bytes(dataclasses.replace(Holder.this_process(by_kernel=False), born="0").to_json())  # it is dead
    assert two.purge("one.mp4-0", flags=flags).returncode == 0
    assert path.read_bytes() == b"".join([framed[0], framed[1], framed[3]])
    assert two.purge("one.mp4-0", flags=("--workdirs=/nowhere/at/all",)).returncode == 2


@contextlib.contextmanager
def held(path: Path):
    import fcntl

    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_reports_that_were_written_elsewhere(two, tmp_path):
    report = tmp_path / "sheet.html"
    assert two.run("report", f"--output={two.root}", f"--html={report}").returncode == 0
    inside = two.root / "notes"
    inside.mkdir()
    shutil.copy(report, inside / "sheet.html")
    done = two.purge("one.mp4-0", flags=("--yes", f"--reports={report}"))
    assert done.returncode == 0, done.stderr
    assert not report.exists() and not (inside / "sheet.html").exists()


def test_what_killed_processes_left_of_temporary_files(two, tmp_path, monkeypatch):
    """Frames and media; those of a process that runs stay with it."""
    code = "import sys; from mbt.pipeline import leftovers; print(sys.argv[1] + '/' + leftovers.prefix('jpegs'))"
    dead = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True).stdout
    left = [Path(f"{dead.strip()}abcdefgh.mjpeg"), Path(f"{dead.strip().replace('jpegs', 'media')}abcdefgh")]
    left[0].write_bytes(b"frames")
    left[1].mkdir()
    (left[1] / "media.mp4").write_bytes(b"media")
    mine = tmp_path / f"{leftovers.prefix('jpegs')}abcdefgh.mjpeg"
    old, young = tmp_path / "mbt-jpegs-aaaaaaaa.mjpeg", tmp_path / "mbt-jpegs-bbbbbbbb.mjpeg"
    other = tmp_path / "mbt-fetch-0"
    for path in (mine, old, young, other):
        path.touch()
    os.utime(old, (0, 0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert leftovers.find() == (
        tuple(sorted(map(str, [*left, old]))),
        tuple(sorted(map(str, [mine, young]))),
    )
    from mbt.pipeline import purge

    found, proof = purge.purge(
        purge.PurgeOptions(root=str(two.root), clip_ids=frozenset({"one.mp4-0"}), reason="r", delete=True)
    )
    assert proof is not None and proof.left == () and found.in_use == tuple(sorted(map(str, [mine, young])))
    assert not any(path.exists() for path in [*left, old]) and mine.exists() and young.exists() and other.exists()


def test_which_time_a_file_holds(films, ffmpeg_program, tmp_path):
    """Also what an edit list hides from players; and of what is no media nobody knows."""
    held = extent.of(str(films / "one.mp4"), ffmpeg_program)
    assert held is not None and held[0] <= 0 and abs(held[1] - 14_040_000) < 60_000
    cut = tmp_path / "cut.mp4"
    words = [ffmpeg_program, "-v", "error", "-ss", "6", "-i", films / "one.mp4", "-t", "3", "-c", "copy", cut]
    subprocess.run([str(word) for word in words], check=True)
    held = extent.of(str(cut), ffmpeg_program)
    assert held is not None and held[0] < -5_900_000  # six seconds that no player shows
    (tmp_path / "none.mp4").write_bytes(b"no media")
    assert extent.of(str(tmp_path / "none.mp4"), ffmpeg_program) is None
