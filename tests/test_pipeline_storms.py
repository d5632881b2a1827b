"""Refusal is a property of a host's answers together: storms, while they last and in hindsight."""

import collections
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_server import serving

from mbt.pipeline import breaker, ledger, storms
from mbt.schemas.clip import Outcome

ROWS = 60
STORMS = {"429": 429, "403": 403, "503": 503, "reset": "reset", "404": 404, "login": "page"}


@pytest.fixture
def server(clip_folder):
    with serving() as running:
        running.files |= {f"{number:02d}.mp4": (clip_folder / "0.mp4").read_bytes() for number in range(ROWS)}
        yield running


@pytest.fixture
def words(server, write_csv, tmp_path):
    """What a command needs for the clips of the server."""
    write_clips(write_csv, tmp_path, [f"{server.url}/{name}" for name in server.files])
    return [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--allow_private_hosts"]


def write_clips(write_csv, folder: Path, sources: list[str]) -> None:
    rows = [{"video_path": source, "start": 0, "end": 1, "label": "a", "id": source} for source in sources]
    write_csv(folder / "clips.csv", rows)


def snapshots(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("snapshots/*/manifest.json"))


def outcomes(root: Path) -> collections.Counter:
    return collections.Counter(ledger.state(str(root))["outcome"].to_pylist())


@pytest.mark.parametrize("begins", [1, 31])
@pytest.mark.parametrize("kind", STORMS)
def test_a_storm_stops_the_run_and_when_the_server_is_well_it_is_completed(
    server, words, mbt_data, tmp_path, kind, begins
):
    server.refuse_with, server.retry_after, server.refuse_from = STORMS[kind], "3600", begins
    root = tmp_path / "out"
    for command in ("build", "fetch"):
        done = mbt_data(command, *words)
        assert done.returncode == 1 and "stopped early" in done.stderr, (done.stdout, done.stderr)
        assert "127.0.0.1" in done.stderr and "Go on with the same command" in done.stderr
        assert not snapshots(root) and not (root / "dataset.json").exists()
        assert set(outcomes(root)) <= {"ok", "blocked", "transient"}
    server.refuse_from = None
    server.requests.clear()
    done = mbt_data("build", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"] == {"clips": ROWS, "records": ROWS, "lost": {}}
    assert len(server.requests) <= ROWS and len(snapshots(root)) == 1


def test_a_host_that_is_down_keeps_no_other_from_being_fetched(server, mbt_data, write_csv, tmp_path):
    with serving() as other:
        down = other.url
    names = list(server.files)[:30]
    sources = [f"{down}/{number}.mp4" for number in range(storms.FEWEST + 3)] + [
        f"{server.url}/{name}" for name in names
    ]
    write_clips(write_csv, tmp_path, sources)
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
    done = mbt_data("build", *words)
    assert done.returncode == 1 and f"that {down.removeprefix('http://')} was asked for" in done.stderr, done.stderr
    assert not snapshots(tmp_path / "out") and outcomes(tmp_path / "out")["ok"] == 30
    done = mbt_data("build", *words, "--allow_loss=0.4", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["records"] == 30


def test_what_a_refresh_heard_in_a_storm_drops_nothing_and_is_asked_again(server, words, mbt_data, tmp_path):
    root = tmp_path / "out"
    assert mbt_data("build", *words).returncode == 0
    files = dict(server.files)
    server.files.clear()
    dropping = ("refresh", *words, "--removed=drop")
    done = mbt_data(*dropping, "--older_than=0s")
    assert done.returncode == 1 and "did not come" in done.stderr, done.stderr
    assert len(snapshots(root)) == 1 and set(outcomes(root)) == {"ok", "transient"}
    server.files |= files
    server.heads.clear()
    done = mbt_data(*dropping, "--json")  # what is younger than 30 days is left alone: but that was no word
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["records"] == ROWS
    assert storms.FEWEST <= len(server.heads) < ROWS and outcomes(root) == {"ok": ROWS}


def test_what_failed_before_a_run_is_expected_to_fail_in_it(server, mbt_data, write_csv, tmp_path):
    """A run over what an earlier one left has hardly any answers but failures."""
    dead = [f"{server.url}/500/{number:02d}.mp4" for number in range(14)]
    write_clips(write_csv, tmp_path, [f"{server.url}/{name}" for name in list(server.files)[:40]] + dead)
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
    for _ in range(2):
        done = mbt_data("fetch", *words, "--json")
        assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path / "out") == {"ok": 40, "transient": 14}


def attempts(run: int, answers: Iterable[tuple[str, str, str]], *, day: int = 1, number: int = 1) -> list[dict]:
    """Rows of a ledger: of each answer the source, which is its clip's id too, outcome and reason; a second each."""
    empty = dict.fromkeys(("attempt_id", "detail", "digest", "media", "signature", "tools"), "")
    return [
        empty
        | {"clip_id": source, "source": source, "run": run, "attempt": number, "outcome": outcome, "reason": reason}
        | {"time": day * 86_400_000_000 + second * 1_000_000, "start_us": 0, "end_us": 1, "bytes": 0}
        | {"media_start_us": 0}
        for second, (source, outcome, reason) in enumerate(answers)
    ]


def state(root: Path, *runs: list[dict]) -> dict[str, tuple[str, bool]]:
    """The newest word on each clip, and whether it was heard in a storm."""
    for rows in runs:
        path = root / "ledger" / f"{rows[0]['run']:06d}" / f"{len(list(root.rglob('*.parquet')))}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, ledger.ATTEMPTS), path)
    rows = ledger.state(str(root)).to_pylist()
    return {row["clip_id"]: (row["outcome"], row["in_storm"]) for row in rows}


OK, GONE, PAGE = ("ok", ""), ("gone", "http_404"), ("unusable", "not_media")
DOUBT, ERROR, REFUSED = ("transient", storms.DOUBT), ("transient", "http_503"), ("blocked", "http_429")
PRIVATE = ("restricted", "private")


def heard(*answers: tuple[tuple[str, str], int], host: str = "http://host", first: int = 0):
    """So many answers of each kind, one after the other."""
    numbers = itertools.count(first)
    return [(f"{host}/{next(numbers):04d}.mp4", *answer) for answer, count in answers for _ in range(count)]


def mixed(answers: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The same, each kind spread over the run."""
    return [answers[number * 37 % len(answers)] for number in range(len(answers))]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (heard((GONE, 60)), {("transient", True): 60}),
        (heard((PAGE, 60)), {("transient", True): 60}),
        (heard((PRIVATE, 60)), {("transient", True): 60}),
        (heard((ERROR, 60)), {("transient", True): 60}),
        (heard((REFUSED, 60)), {("blocked", True): 60}),
        (heard((OK, 100), (GONE, 20)), {("ok", False): 100, ("transient", True): 20}),
        (heard((OK, 100), (GONE, 19)), {("ok", False): 100, ("gone", False): 19}),
        (heard((OK, 30), (ERROR, 20), (GONE, 20)), {("ok", False): 30, ("transient", True): 40}),
        (heard((OK, 12), (REFUSED, 12), (GONE, 4)), {("ok", False): 12, ("blocked", True): 12, ("transient", True): 4}),
        # Losses as they are: of AudioSet a sixth; a few; of an old list nearly half.
        (mixed(heard((OK, 851), (GONE, 149))), {("ok", False): 851, ("gone", False): 149}),
        (heard((GONE, storms.FEWEST - 1)), {("gone", False): storms.FEWEST - 1}),
        (
            mixed(heard((OK, 51), (GONE, 40), (PRIVATE, 10))),
            {("ok", False): 51, ("gone", False): 40, ("restricted", False): 10},
        ),
        # More than half of what a run asked for.
        (mixed(heard((OK, 40), (GONE, 61))), {("ok", False): 40, ("transient", True): 61}),
    ],
)
def test_what_is_heard_in_a_storm_settles_nothing(tmp_path, answers, expected):
    assert collections.Counter(state(tmp_path, attempts(1, answers)).values()) == expected


def test_a_storm_is_its_hosts(tmp_path):
    """Whatever names YouTube goes by; and files on this machine have none."""
    own = [(f"/videos/{number}.mp4", "transient", "missing") for number in range(60)]
    pages = ("https://www.youtube.com/watch?v=", "https://youtu.be/", "http://M.YouTube.com/watch?v=")
    youtube = [(f"{page}{number:011d}", *DOUBT) for page in pages for number in range(5)]
    answers = own + youtube + heard((GONE, 60)) + heard((OK, 15), (GONE, 2), host="https://user@other:8443")
    found = state(tmp_path, attempts(1, answers))
    storm = {source for source, (_, in_storm) in found.items() if in_storm}
    assert storm == {source for source, *_ in youtube + heard((GONE, 60))}
    assert collections.Counter(outcome for outcome, _ in found.values()) == {"transient": 135, "ok": 15, "gone": 2}


def test_many_clips_of_one_lost_video_are_no_storm(tmp_path):
    rows = attempts(1, [("http://host/long.mp4", *GONE)] * 60)
    rows = [row | {"clip_id": str(number)} for number, row in enumerate(rows)]
    assert set(state(tmp_path, rows).values()) == {("gone", False)}


def test_what_a_run_repeats_of_the_past_is_no_answer(tmp_path):
    found = heard((GONE, 60))
    first = attempts(1, [(source, *OK) for source, *_ in found])
    assert set(state(tmp_path, first, attempts(2, found, number=storms.AFTER)).values()) == {("gone", False)}


def test_bad_copies_are_no_answer(tmp_path):
    copies = attempts(1, [(source, "transient", storms.BAD_COPY) for source, *_ in heard((OK, 60))])
    assert set(state(tmp_path, copies).values()) == {("transient", False)}


def test_a_loss_among_what_was_left_is_one(tmp_path):
    """Those that failed while their host was well: that all of them fail again is no news, and what is said counts."""
    left = heard((ERROR, 30), first=970)
    first = attempts(1, mixed(heard((OK, 970)) + left))
    second = attempts(2, [(source, *GONE) for source, *_ in left])
    found = state(tmp_path, first, second)
    assert {found[source] for source, *_ in left} == {("gone", False)}


def test_after_a_storm_all_is_news_again(tmp_path):
    """Three storms, of which each asks what the last one left; the losses among them are found when they are over."""
    lost = {source for source, *_ in heard((GONE, 9), first=91)}
    storm = [attempts(run, heard((GONE, 100))) for run in (1, 2, 3)]
    assert set(state(tmp_path, *storm).values()) == {("transient", True)}
    well = attempts(4, [(source, *(GONE if source in lost else OK)) for source, *_ in heard((OK, 100))])
    found = state(tmp_path, well)
    assert {source for source, word in found.items() if word == ("gone", False)} == lost


def days(root: Path, *runs: Iterable[tuple[str, str, str]]) -> collections.Counter:
    """Outcomes after a run a day."""
    found = state(root, *(attempts(day, answers, day=day) for day, answers in enumerate(runs, 1)))
    return collections.Counter(outcome for outcome, _ in found.values())


def test_three_days_of_unavailable_for_all_lose_nothing(tmp_path, mbt_data, write_csv):
    """As YouTube says to guests it dislikes."""
    answers = heard((DOUBT, ROWS), host="https://www.youtube.com/watch?v=")
    assert days(tmp_path / "out", answers, answers, answers) == {"transient": ROWS}
    write_clips(write_csv, tmp_path, [source for source, *_ in answers])
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--json"]
    status = json.loads(mbt_data("status", *words).stdout)
    assert status["splits"]["train"]["gone"] == 0 and status["left"] == ROWS


def test_doubt_on_three_days_on_which_the_host_was_well_is_loss(tmp_path):
    """On the second and the third day nothing is asked for but what the first one left."""
    doubt = heard((DOUBT, 20), first=100)
    first = mixed(heard((OK, 100)) + doubt)
    assert days(tmp_path / "two", first, doubt, [*doubt]) == {"ok": 100, "gone": 20}
    assert days(tmp_path / "one", first, doubt) == {"ok": 100, "transient": 20}


@given(st.lists(st.sampled_from([OK, OK, GONE, ERROR, REFUSED]), max_size=100))
def test_in_hindsight_a_storm_is_what_stopped_the_run(tmp_path_factory, kinds):
    """Where the breaker tripped there was one; where it did not, only a run that lost most of all was one."""
    work = tmp_path_factory.mktemp("work")
    answers = [answer for number, kind in enumerate(kinds) for answer in heard((kind, 1), first=number)]
    asked = breaker.Breaker(str(work))
    for source, outcome, reason in answers:
        asked.record(source, Outcome(outcome), reason, "")
    rows = pa.Table.from_pylist(attempts(1, answers), ledger.ATTEMPTS)
    stormy = storms.hindsight(rows)
    lost_most = len(kinds) >= storms.FEWEST and kinds.count(GONE) > storms.MOSTLY * len(kinds)
    assert stormy.any() == (asked.tripped("http://host/x") is not None or lost_most)
    assert not any(in_storm for in_storm, kind in zip(stormy, kinds, strict=True) if kind == OK)
