"""`mbt-data plan`: its numbers, its formulas, and that they come true."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from formulas import evaluate, lines, number
from media_server import PRIVATE, serving

from mbt.pipeline.forecast import advice, losses, rates, sheet
from mbt.pipeline.forecast.counts import Counts

COUNTS = Counts(
    splits={"test": 1_000, "train": 9_000},
    shards={"test": 16, "train": 256},
    invalid=7,
    seconds=80_000.0,
    local=0,
    missing=0,
    there=1_500,
    lost={"gone": 400, "unusable": 50},
    tried={"ok": 1_500, "gone": 400, "restricted": 50, "unusable": 50},
    attempts=2_100,
    left=8_050,
    videos=6_000,
    youtube=5_000,
    built=1_200,
)
LOCAL = dataclasses.replace(
    COUNTS, local=10_000, missing=300, there=0, lost={}, tried={}, attempts=0, left=0, videos=0, youtube=0, built=0
)
RATES = rates.Rates(cpu_s=0.05, cpu_source="a sample", start_cpu_s=3.0, start_source="a build", unusable=0.02)
WISHES = sheet.Wishes(machines=2, addresses=4, interval_s=6.0, cores=2, within_s=3600.0)
UNKNOWN = losses.Losses(shares={}, source="", known=False)


def values(sections: tuple[sheet.Section, ...]) -> dict[str, float]:
    return {line.name: line.value for section in sections for line in section.lines}


def test_numbers_from_the_ledger():
    found = values(sheet.sections(COUNTS, losses.of("vggsound", COUNTS.tried), RATES, WISHES))
    assert found["gone"] == pytest.approx(400 + 8_050 * 0.2)
    assert found["restricted"] == pytest.approx(8_050 * 0.025)  # none is settled: they are asked again
    assert found["unusable"] == pytest.approx(50 + 8_050 * 0.025)
    records = 10_000 - 450 - 8_050 * 0.25
    assert found["records"] == pytest.approx(records)
    assert found["requests"] == 5_000 * 10 + 1_000
    assert found["fetch days"] == pytest.approx(6_000 * 6 / 2 / 86_400)
    assert found["fetch machines"] == math.ceil(6_000 * 6 / 3600)
    assert found["days of a guest"] == pytest.approx(5_000 / 300 / 24 / 4)
    assert found["media"] == pytest.approx(8_050 * 0.75 * 8 * 100_000)
    assert found["CPU"] == pytest.approx((records - 1_200) * 8 * 0.05 + 10 + 3)
    assert found["shard bytes"] == pytest.approx(records * 8 * 450_000)
    assert found["shards"] == 272
    assert found["ledger"] == (2_100 + 8_050) * rates.LEDGER_BYTES_PER_ATTEMPT


def test_local_files_need_no_fetching():
    sections = sheet.sections(LOCAL, UNKNOWN, RATES, WISHES)
    found = values(sections)
    assert "fetching" not in [section.title for section in sections]
    assert found["missing"] == 300 and found["unusable"] == pytest.approx(9_700 * 0.02)
    assert found["records"] == pytest.approx(9_700 * 0.98)


@pytest.mark.parametrize("counts", [COUNTS, LOCAL, dataclasses.replace(COUNTS, youtube=0)])
@pytest.mark.parametrize(
    "wishes", [WISHES, sheet.Wishes(), sheet.Wishes(bytes_per_second=100_000, download="whole"), sheet.Wishes(cores=3)]
)
@pytest.mark.parametrize("speed", [None, 0.123])
def test_every_formula_gives_its_number(counts, wishes, speed):
    found = dataclasses.replace(RATES, clips_per_second=speed, record_bytes=412_345.6, record_error=0.05)
    sections = sheet.sections(counts, losses.of("audioset", counts.tried), found, wishes)
    names = values(sections)
    with_formula = [line for section in sections for line in section.lines if line.formula]
    assert len(with_formula) >= 12
    for line in with_formula:
        others = {name: value for name, value in names.items() if name != line.name}
        assert evaluate(line.formula, others) == pytest.approx(line.value, rel=2e-3), line
        if line.name not in ("fetch machines", "workers"):  # which are rounded to whole ones
            assert number(line.to_text()) == pytest.approx(line.value, rel=0.05, abs=0.5), line


def test_the_narrowest_limit_decides():
    def per_second(**wishes) -> float:
        return sheet.pace(COUNTS, RATES, sheet.Wishes(**wishes)).per_second

    assert per_second() == pytest.approx(8 / 3)
    assert per_second(interval_s=12) == pytest.approx(1 / 12)
    assert per_second(interval_s=0.1) == pytest.approx(8 / 3)
    assert per_second(bytes_per_second=1_000) < 1 / 1_000


def test_advice_is_given_where_it_helps():
    said = " ".join(advice.of(COUNTS, UNKNOWN, RATES, sheet.Wishes()))
    assert "--sleep=12" in said and "--max_attempts" in said and "no clip was measured" in said
    measured = rates.Measured(pixels="up to 360", clips=2, seconds=2.0, cpu_s=0.1, bytes=9)
    known = losses.of("vggsound", {})
    calm = dataclasses.replace(RATES, measured=(measured,))
    assert not list(advice.of(COUNTS, known, calm, sheet.Wishes(interval_s=12)))
    assert "--sleep=24" in " ".join(advice.of(COUNTS, known, calm, sheet.Wishes(machines=4, addresses=2)))


def tree(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*")}


def test_a_plan_comes_true_and_writes_nothing(clip_folder, six_rows, write_csv, mbt_data, tmp_path):
    """All six clips are measured, so that bytes come out exactly; CPU time is benchmarks/plan.py's."""
    absent = [{"video_path": "7.mp4", "start": 0, "end": 1, "label": "odd", "split": "train", "id": "7"}]
    write_csv(tmp_path / "clips.csv", six_rows + absent)
    words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={clip_folder}"]
    before = tree(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = mbt_data("plan", *words, "--json", env={"TMPDIR": str(scratch)})
    assert done.returncode == 0, done.stderr
    assert not list(scratch.iterdir())
    scratch.rmdir()
    assert tree(tmp_path) == before
    planned = json.loads(done.stdout)
    assert planned["losses"]["missing"]["value"] == 1
    assert planned["losses"]["records"]["value"] == 6
    (sample,) = planned["sample"]
    assert (sample["pixels"], sample["clips"], sample["seconds"]) == ("up to 240", 6, 6.0)
    assert sample["cpu_s"] > 0 and planned["building"]["CPU"]["value"] > sample["cpu_s"]

    words.append(f"--output={tmp_path}/out")
    built = mbt_data("build", *words, "--allow_loss=0.2")
    assert built.returncode == 0, built.stderr
    shards = sum(path.stat().st_size for path in (tmp_path / "out" / "shards").glob("*.tfrecord"))
    assert planned["building"]["shard_bytes"]["value"] == pytest.approx(shards, rel=0.01)
    names = {path.name for path in (tmp_path / "out" / "shards").glob("*.tfrecord")}
    assert planned["building"]["shards"]["value"] == len(names)

    again = mbt_data("plan", *words, "--sample=0")
    assert again.returncode == 0, again.stderr
    shown = {name: value for name, value, _ in lines(again.stdout)}
    assert shown["records to make"] == "0" and shown["records"] == "6"


def test_losses_and_bytes_are_those_of_the_ledger(clip_folder, write_csv, mbt_data, tmp_path):
    with serving() as server:
        for name in ("0.mp4", "1.mp4", "2.mp4", "3.mp4"):
            server.files[name] = (clip_folder / name).read_bytes()
        paths = ["0.mp4", "1.mp4", "404/2.mp4", "451/3.mp4"]
        rows = [
            {"video_path": f"{server.url}/{path}", "start": 0, "end": 1, "label": "a", "id": path} for path in paths
        ]
        write_csv(tmp_path / "clips.csv", rows)
        words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
        assert mbt_data("fetch", *words, PRIVATE).returncode == 0
        more = [{**rows[0], "video_path": f"{server.url}/{number}.mp4", "id": str(number)} for number in range(2, 6)]
        write_csv(tmp_path / "clips.csv", rows + more)
        server.requests.clear()
        done = mbt_data("plan", *words, "--json", "--sleep=5", "--max_fetch_workers=2")
        assert done.returncode == 0, done.stderr
        assert not server.requests
    planned = json.loads(done.stdout)
    clips, lost, fetching = planned["clips"], planned["losses"], planned["fetching"]
    assert clips["fetched"]["value"] == 2 and clips["left_to_fetch"]["value"] == 5  # the restricted one again
    assert lost["gone"]["value"] == pytest.approx(1 + 5 / 4) and "4 clips tried" in lost["gone"]["source"]
    assert lost["restricted"]["value"] == pytest.approx(5 / 4)
    assert fetching["requests"]["value"] == 5
    assert "--sleep" not in fetching["fetch_days"]["source"]  # it is for YouTube
    assert "2 machines" in fetching["fetch_days"]["formula"]
    sizes = [os.path.getsize(path) for path in (tmp_path / "out" / "media").rglob("*.mp4")]
    assert fetching["media"]["value"] == pytest.approx(5 * 0.5 * sum(sizes) / 2)
    assert planned["sample"][0]["clips"] == 2  # from the media store


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--within=0"], "--within=0: say how long"),
        (["--sample=-1"], "-1 is negative"),
        (["--within=soon"], "soon is not an age"),
        (["--proxies=none.txt"], "--proxies=none.txt: no such file"),
        (["--no_such_flag"], "unknown flag --no_such_flag"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(more, said, clip_folder, six_rows, write_csv, mbt_data, tmp_path):
    write_csv(tmp_path / "clips.csv", six_rows)
    done = mbt_data("plan", f"--annotations={tmp_path}/clips.csv", f"--media_root={clip_folder}", *more)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_list_without_clips_is_refused(mbt_data, tmp_path):
    (tmp_path / "clips.csv").write_text("video_path,start,end,label\na.mp4,5,1,x\n")
    done = mbt_data("plan", f"--annotations={tmp_path}/clips.csv")
    assert done.returncode == 2 and "holds no valid clip" in done.stderr
