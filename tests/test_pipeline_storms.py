"""Refusal is a property of a host's answers together: storms, while they last and in hindsight."""

import collections
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_server import serving

from mbt.pipeline import breaker, ledger, storms
from mbt.schemas.clip import Outcome

ROWS = 40
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


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        *((kind, 1) for kind in ("429", "reset", "404", "login")),
        ("404", 21),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("403", "503")),  # for the rest as 429 and reset
        *(pytest.param(kind, 21, marks=pytest.mark.slow) for kind in STORMS if kind != "404"),
    ],
)
def test_a_storm_stops_the_run_and_when_the_server_is_well_it_is_completed(
    server, words, mbt_data, tmp_path, kind, begins
):
    server.refuse_with, server.refuse_from = STORMS[kind], begins
    server.retry_after = "3600" if begins == 1 else "1"  # so long each waits whom the breaker has not stopped yet
    root = tmp_path / "out"
    for command in ("build", "fetch"):
        done = mbt_data(command, *words)
        assert done.returncode == 1 and "stopped early" in done.stderr, (done.stdout, done.stderr)
        assert ("a web page came" in done.stderr) == (kind == "login")
        assert "127.0.0.1" in done.stderr and "Go on with the same command" in done.stderr
        assert not snapshots(root) and not (root / "dataset.json").exists()
        assert set(outcomes(root)) <= {"ok", "blocked", "transient"}
    server.refuse_from = None
    server.requests.clear()
    done = mbt_data("build", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"] == {"clips": ROWS, "records": ROWS, "lost": {}}
    assert len(server.requests) <= ROWS and len(snapshots(root)) == 1


@pytest.mark.parametrize("command", ["build", "fetch"])
def test_a_server_that_cuts_all_its_files_off_settles_nothing(server, words, mbt_data, tmp_path, command):
    """A proxy whose disk is full answers so: of each file a part, under a length that agrees with it."""
    whole = dict(server.files)
    server.files |= {name: data[: len(data) // 2] for name, data in whole.items()}
    root = tmp_path / "out"
    done = mbt_data(command, *words)
    assert done.returncode == 1 and "stopped early" in done.stderr, (done.stdout, done.stderr)
    assert not snapshots(root) and set(outcomes(root)) == {"transient"}
    server.files |= whole
    done = mbt_data("build", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"] == {"clips": ROWS, "records": ROWS, "lost": {}}


def test_a_host_that_is_down_keeps_no_other_from_being_fetched(server, mbt_data, write_csv, tmp_path):
    with serving() as other:
        down = other.url
    names = list(server.files)[:30]
    sources = [f"{down}/{number}.mp4" for number in range(storms.FEWEST + 3)] + [
        f"{server.url}/{name}" for name in names
    ]
    write_clips(write_csv, tmp_path, sources)
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--allow_private_hosts"]
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


@pytest.fixture
def publish(server, mbt_data, write_csv, tmp_path):
    """Runs a command for some of the server's clips; how many records it published, or why it did not."""

    def publish(command: str, names: list[str], *flags: str) -> int | str:
        write_clips(write_csv, tmp_path, [f"{server.url}/{name}" for name in names])
        words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--allow_private_hosts", "--json"]
        done = mbt_data(command, *words, *flags)
        assert done.returncode in (0, 1) and (done.returncode == 0) == (done.stdout != ""), done.stderr
        return json.loads(done.stdout)["splits"]["train"]["records"] if done.stdout else done.stderr

    return publish


def without(server, names: list[str]) -> dict[str, bytes]:
    """Takes these films off the server."""
    return {name: server.files.pop(name) for name in names}


def test_a_few_records_of_which_most_are_said_to_be_gone_are_not_dropped(server, publish, tmp_path):
    names = list(server.files)[:10]
    assert publish("build", names) == 10
    away = without(server, names[2:])
    dropping = ("refresh", names, "--removed=drop")
    for flags in ((*dropping, "--older_than=0s"), dropping):  # whatever the age: it is in doubt
        said = publish(*flags)
        assert "train would lack 8 of 10 records" in said and "--allow_loss=0.80" in said, said
        assert len(snapshots(tmp_path / "out")) == 1
    server.files |= away
    assert publish(*dropping) == 10
    without(server, names[2:])
    assert publish(*dropping, "--older_than=0s", "--allow_loss=0.8") == 2
    assert publish(*dropping) == 2  # that snapshot has accounted for them


def test_a_first_build_of_a_few_clips_waits_for_a_server_that_says_most_are_gone(server, publish, tmp_path):
    names = list(server.files)[:11]
    away = without(server, names[1:])
    said = publish("build", names)
    assert "train would lack 10 of 11 clips" in said and "(gone, http_404: " in said, said
    assert not snapshots(tmp_path / "out")
    server.files |= away
    assert publish("build", names) == 11


@pytest.mark.parametrize("count", [3, 5])
def test_a_few_clips_of_which_one_is_gone_are_published(server, publish, count):
    names = list(server.files)[:count]
    without(server, names[1:2])
    assert publish("build", names) == count - 1


def test_what_failed_before_a_run_is_expected_to_fail_in_it(server, mbt_data, write_csv, tmp_path):
    """A run over what an earlier one left has hardly any answers but failures."""
    dead = [f"{server.url}/500/{number:02d}.mp4" for number in range(14)]
    write_clips(write_csv, tmp_path, [f"{server.url}/{name}" for name in list(server.files)[:40]] + dead)
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--allow_private_hosts"]
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
PRIVATE, CUT, SILENT = ("restricted", "private"), ("unusable", "truncated"), ("unusable", "no_audio")


def heard(*answers: tuple[tuple[str, str], int], host: str = "http://host", first: int = 0):
    """So many answers of each kind, one after the other."""
    numbers = itertools.count(first)
    return [(f"{host}/{next(numbers):04d}.mp4", *answer) for answer, count in answers for _ in range(count)]


def mixed(answers: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The same, each kind spread over the run."""
    return [answers[number * 37 % len(answers)] for number in range(len(answers))]


LOST = [GONE, PAGE, CUT, DOUBT, ERROR, REFUSED, PRIVATE]


@pytest.mark.parametrize(("outcome", "reason"), LOST)
def test_what_a_host_said_in_a_run_that_gave_it_up_settles_nothing(tmp_path, outcome, reason):
    """However little that is; and what else was said, of it in another run or of another host in this one, stands."""
    answers = heard((OK, 30), ((outcome, reason), 3))
    others = heard((OK, 30), (GONE, 3), host="http://other")
    breaker.Breaker(ledger.storms_of(str(tmp_path), 2)).trip("12 of the last 12 videos did not come", "host")
    found = state(tmp_path, attempts(1, heard((GONE, 3), first=100)), attempts(2, answers + others))
    words = collections.Counter(found[source] for source, *_ in answers)
    assert words == {("ok", False): 30, ("blocked" if outcome == "blocked" else "transient", True): 3}
    assert collections.Counter(found.values()) == words + collections.Counter({("ok", False): 30, ("gone", False): 6})


def test_where_the_machine_was_at_fault_what_hosts_said_stands(tmp_path):
    breaker.Breaker(ledger.storms_of(str(tmp_path), 1)).trip("the disk is full")
    assert set(state(tmp_path, attempts(1, heard((GONE, 3)))).values()) == {("gone", False)}


def test_a_note_that_a_power_cut_left_empty_is_none(tmp_path):
    folder = Path(ledger.storms_of(str(tmp_path), 1))
    folder.mkdir(parents=True)
    (folder / "0123.json").touch()
    assert set(state(tmp_path, attempts(1, heard((GONE, 3)))).values()) == {("gone", False)}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # More than half of what a run asked a host for, 12 or more.
        (heard((GONE, 60)), {("transient", True): 60}),
        (heard((PAGE, 60)), {("transient", True): 60}),
        (heard((DOUBT, 60)), {("transient", True): 60}),
        (heard((CUT, 60)), {("transient", True): 60}),
        (heard((GONE, storms.FEWEST)), {("transient", True): storms.FEWEST}),
        (heard((OK, 40), (GONE, 41)), {("ok", False): 40, ("transient", True): 41}),
        (heard((OK, 9), (GONE, 5), (PAGE, 5)), {("ok", False): 9, ("transient", True): 10}),
        # Losses as they are: of AudioSet a sixth; of an old list half; a few.
        (heard((OK, 851), (GONE, 149)), {("ok", False): 851, ("gone", False): 149}),
        (heard((OK, 40), (GONE, 40)), {("ok", False): 40, ("gone", False): 40}),
        (heard((OK, 40), (CUT, 12)), {("ok", False): 40, ("unusable", False): 12}),
        (heard((SILENT, 60)), {("unusable", False): 60}),  # films of most datasets may have no sound
        (
            heard((ERROR, 40), (GONE, 10), (PRIVATE, 9)),
            {("transient", False): 40, ("gone", False): 10, ("restricted", False): 9},
        ),
        (heard((GONE, storms.FEWEST - 1)), {("gone", False): storms.FEWEST - 1}),
    ],
)
def test_what_is_said_of_most_settles_nothing(tmp_path, answers, expected):
    assert collections.Counter(state(tmp_path, attempts(1, answers)).values()) == expected


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([heard((GONE, 1))], 0),  # one source says nothing of its host
        ([heard((GONE, 2))], 2),
        ([heard((OK, 2), (GONE, 2))], 0),
        ([heard((OK, 2), (GONE, 3))], 3),
        ([heard((OK, 5), (GONE, 6))], 6),
        ([heard((OK, 1), (PAGE, 5), (GONE, 4))], 0),
        ([heard((OK, 8), (GONE, 7))], 0),
        ([heard((GONE, 1), host=f"http://host{number}") for number in range(9)], 0),
        ([heard((OK, 2), (ERROR, 8)), heard((GONE, 8), first=2)], 8),  # that they failed before is no excuse
        ([heard((GONE, 8)), heard((GONE, 8))], 8),
        ([heard((GONE, 8)), heard((GONE, 8), (OK, 40))], 0),
        ([heard((OK, 970), (ERROR, 30)), heard((GONE, 30), first=970)], 0),
    ],
)
def test_what_few_are_said_to_be_is_in_doubt(tmp_path, runs, expected):
    words = state(tmp_path, *(attempts(number, answers) for number, answers in enumerate(runs, 1)))
    doubted = [row["outcome"] for row in ledger.state(str(tmp_path)).to_pylist() if row["mostly_gone"]]
    assert doubted == ["gone"] * expected and not any(in_storm for _, in_storm in words.values())


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


@pytest.fixture
def asked(tmp_path) -> breaker.Breaker:
    return breaker.Breaker(str(tmp_path / "storms"))


def trips(asked: breaker.Breaker, answers: list[tuple[str, str, str]]) -> int | None:
    """After how many answers it did."""
    for number, (source, outcome, reason) in enumerate(answers, 1):
        asked.record(source, Outcome(outcome), reason, "why")
        if asked.tripped(source) is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        *((heard((kind, 60)), storms.FEWEST) for kind in LOST),
        (heard((REFUSED, 11)), None),
        (heard((OK, 12), (REFUSED, 60)), 24),
        (heard((OK, 1000), (REFUSED, 60)), 1020),
        (heard((OK, 1000), (GONE, 60)), 1020),
        (heard((OK, 1000), (GONE, 16), (OK, 8), (ERROR, 16)), None),
        (heard((OK, 1000), *[(GONE, 9), (OK, 1)] * 6), 1036),
        (heard(*[(OK, 1), (GONE, 3)] * 200), None),
        (heard(*[(OK, 1), (GONE, 5)] * 200), 12),
        (heard(*[(("unusable", "no_audio"), 60)]), None),
    ],
)
def test_when_a_host_is_given_up(asked, answers, expected):
    assert trips(asked, answers) == expected


def test_the_order_is_that_of_coming(asked):
    """Good files are probed for a while, and meanwhile refusals come."""
    good = heard((OK, 15))
    for source, *_ in good:
        asked.arrived(source)
    assert trips(asked, heard((GONE, 11), first=100)) is None
    assert trips(asked, good) is None
    assert trips(asked, heard((GONE, 9), first=200)) == 9


def test_another_try_is_no_other_answer(asked):
    for _ in range(3):
        assert trips(asked, heard((ERROR, storms.FEWEST - 1))) is None


def test_what_is_expected_says_nothing(asked):
    for source, outcome, reason in heard((ERROR, 60)):
        asked.record(source, Outcome(outcome), reason, "", known="gone")
    assert asked.tripped("http://host/x") is None
    for source, outcome, reason in heard((REFUSED, storms.FEWEST)):  # nobody expects to be refused
        asked.record(source, Outcome(outcome), reason, "", known="gone")
    assert asked.tripped("http://host/x") is not None


def test_losses_that_are_allowed_stop_nothing(tmp_path):
    asked = breaker.Breaker(str(tmp_path / "storms"), lost_share=0.95)
    assert trips(asked, heard(*[(OK, 1), (GONE, 12)] * 9)) is None
    assert trips(asked, heard((GONE, 60), first=1000)) == 15  # of the last 40 one came
    assert trips(breaker.Breaker(str(tmp_path / "all"), lost_share=1.0), heard((GONE, 60))) is None
