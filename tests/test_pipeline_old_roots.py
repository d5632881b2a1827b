"""A dataset that a6ed681 made lives on: read, checked, mended, purged, and re-encoded from its own media."""

import json
import re
import shutil

import old_version
import pyarrow.parquet as pq
import pytest

from mbt.pipeline import ledger, media, plan
from mbt.pipeline.reasons import RULES
from mbt.pipeline.shard import COPIED, DECODED, Builder
from mbt.schemas import index as shard_index
from mbt.schemas.manifest import Dataset, Manifest


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return old_version.unpack(tmp_path_factory.mktemp("a6ed681"))


@pytest.fixture
def old(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "old")


@pytest.fixture
def web(old):
    with old_version.web(old) as running:
        yield running


@pytest.fixture
def run(mbt_data, old, web):
    """run(command, ...) with the annotations; the process, completed."""

    def run(command: str, *words: str, clips: str = "held.csv", root: str = "root"):
        files = [f"--annotations={old}/{clips}", f"--output={old}/{root}", "--name=small"]
        fetching = [f"--proxies={old}/proxies.txt"] if command in ("build", "refresh") else []
        return mbt_data(command, *files, *fetching, *words)

    return run


def result(completed) -> dict:
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def manifests(root) -> list[Manifest]:
    found = [Manifest.from_json(path.read_text()) for path in root.glob("snapshots/*/manifest.json")]
    return sorted(found, key=lambda manifest: manifest.created)


def rows(root, manifest: Manifest) -> dict[str, dict]:
    table = pq.read_table(root / "snapshots" / manifest.snapshot / "clips.parquet")
    return {row["id"]: row for row in table.to_pylist()}


def files(root) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "shards").iterdir()}


def test_it_is_reencoded_without_one_request(run, old, web, mbt_data):
    before = files(old / "root")
    done = run("build", "--json")
    built = result(done)
    assert web.requests == []
    assert "11 clips are to be re-encoded, and 0 of them lack media" in done.stderr
    assert built["clips_decoded"] == 11 and built["clips_copied"] == 0
    first, second = manifests(old / "root")
    assert (first.snapshot, second.parent, first.encoding, second.encoding) == ("first", "first", 0, 1)
    was, now = (rows(old / "root", manifest) for manifest in (first, second))
    records = {name for name, row in was.items() if row["outcome"] == "ok"}
    assert len(records) == 9 and records <= {name for name, row in now.items() if row["outcome"] == "ok"}
    assert {name: file for name, file in files(old / "root").items() if name in before} == before
    dataset = Dataset.from_json((old / "root" / "dataset.json").read_text())
    assert dataset.as_of(second) == dataset and dataset.as_of(first).former == ()
    assert dataset.identity != dataset.as_of(first).identity
    assert result(run("build", "--json"))["new"] is False  # and so it stays
    # It is what a build from nothing makes.
    assert web.requests == []
    result(run("build", "--json", "--num_shards=2", root="anew"))
    new = {name: file for name, file in files(old / "root").items() if name not in before}
    anew = files(old / "anew")
    assert new.keys() == anew.keys()
    assert all(anew[name] == file for name, file in new.items() if name.endswith(".tfrecord"))


def test_a_plan_says_that_all_is_reencoded_for_as_long_as_that_is_so(run, old, web):
    words = ("--sample=0", "--json")
    planned = result(run("plan", *words))
    assert planned["building"]["re-encoded"]["value"] == 11
    assert planned["building"]["records_to_make"]["value"] == planned["losses"]["records"]["value"]
    (said,) = [note for note in planned["notes"] if "another encoder" in note]
    assert "11 clips are to be re-encoded, and 0 of them lack media" in said and len(said.splitlines()) == 1
    result(run("build", "--json"))
    planned = result(run("plan", *words))
    assert "re-encoded" not in planned["building"] and not [note for note in planned["notes"] if "encoder" in note]
    assert planned["building"]["records_to_make"]["value"] <= 1 and web.requests == []


def test_both_snapshots_are_read_by_every_command(run, old, mbt_data):
    result(run("build", "--json"))
    output = f"--output={old}/root"

    def told(*words: str) -> str:
        done = mbt_data(*words, output)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "8 shards" in told("verify", "--snapshot=all") and "first" in told("list")
    compared = json.loads(told("diff", "first", "latest", "--json"))
    assert "index_version" in compared["reencoded"] and compared["splits"]["train"]["common"] == 6
    assert "re-encoded: another encoder made all records anew" in told("diff", "first", "latest")
    assert json.loads(told("diff", "first", "first", "--json"))["reencoded"] == []
    for name, records in (("first", 9), ("latest", 10)):  # one was refused by older rules
        assert json.loads(told("show", name, "--json"))["records"] == records
        assert f"{old}/{name}.html" in told("report", f"--snapshot={name}", f"--html={old}/{name}.html")
        assert f"{records} records" in told("export", "--layout=scenic", f"{old}/export-{name}", f"--snapshot={name}")
    assert mbt_data("gc", output, "--older_than=0s", "--yes").returncode == 0
    assert "8 shards" in told("verify", "--snapshot=all")


def test_what_older_rules_refused_is_tried_once_more(run, old, web):
    assert result(run("status", "--json", clips="clips.csv"))["refused_by_older_rules"] == 4
    assert "4 clips refused by older rules will be tried again" in run("status", clips="clips.csv").stdout
    result(run("build", "--json", clips="clips.csv"))
    assert sorted(web.requests) == ["silent.mp4", "still.mp4"]  # what is gone is not asked for, nor what is held
    now = rows(old / "root", manifests(old / "root")[-1])
    for name in (*old_version.AT_FETCH, *old_version.AT_DECODE):
        assert now[name]["outcome"] == "ok" or now[name]["rule"] == RULES
    assert now["unusable"]["reason"] == "no_audio" and now["junk"]["outcome"] == "unusable"
    assert result(run("status", "--json", clips="clips.csv"))["refused_by_older_rules"] == 0
    again = result(run("build", "--json", clips="clips.csv"))
    assert len(web.requests) == 2 and again["shards_built"] == 0
    state = {row["clip_id"]: row for row in ledger.state(str(old / "root")).to_pylist()}
    assert state["unusable"]["rule"] == RULES and state["gone"]["rule"] is None


def test_what_an_older_rule_cut_is_counted_and_fetched_again_when_that_is_asked_for(run, old, web):
    """Then its name says which rule cut it; where it does not come, the old cut stays."""
    (cut,) = (old / "root" / "media").rglob("*-23591474.mp4")
    asked = "1 clips have media that an older rule cut, which may be wrong: mbt-data fetch --recut"
    assert result(run("status", "--json"))["cut_by_older_rules"] == 1 and asked in run("status").stdout
    words = (f"--proxies={old}/proxies.txt", "--recut")
    film = old / "films" / "long.mp4"
    whole = film.read_bytes()
    film.unlink()
    status = result(run("fetch", "--json", *words))
    assert web.requests == ["long.mp4"] and cut.exists()
    assert status["cut_by_older_rules"] == 1 and status["media_missing"] == 0
    film.write_bytes(whole)
    done = run("build")
    assert done.returncode == 0 and "1 have media that an older rule cut" in done.stderr
    assert "mbt-data fetch --recut fetches them again" in done.stderr
    result(run("fetch", "--json", *words))
    assert web.requests == ["long.mp4"] * 2 and not cut.exists()
    (anew,) = cut.parent.iterdir()
    assert re.fullmatch(rf"{cut.name[:24]}-[0-9a-f]{{12}}-\d+r{media.CUT_RULE}\.mp4", anew.name)
    assert result(run("status", "--json"))["cut_by_older_rules"] == 0
    assert result(run("fetch", "--json", *words))["left"] == 0 and len(web.requests) == 2
    built = result(run("build", "--json"))
    assert built["splits"]["train"]["records"] == 7


def test_a_refresh_does_it_when_it_is_told_to(run, old, web):
    passing = ("--recheck=transient", "--json")
    refused = run("refresh", *passing)
    assert refused.returncode == 2 and "--reencode" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert len(manifests(old / "root")) == 1 and '"former"' not in (old / "root" / "dataset.json").read_text()
    assert result(run("refresh", *passing, "--reencode"))["clips_decoded"] == 11
    assert web.requests == [] and manifests(old / "root")[-1].parent == "first"
    # What older rules refused is no matter of an age or an outcome that was named.
    for _ in range(2):
        result(run("refresh", *passing, clips="clips.csv"))
        assert sorted(web.requests) == ["silent.mp4", "still.mp4"]


def test_media_that_are_lacking_are_fetched_when_that_is_asked_for(run, old, web):
    refused = run("build", clips="released.csv", root="released")
    assert refused.returncode == 2 and web.requests == []
    assert "3 clips are to be re-encoded, and 3 of them lack media" in refused.stderr and "--reencode" in refused.stderr
    assert len(manifests(old / "released")) == 1
    words = ("--json", "--keep_media=no", "--reencode")
    built = result(run("build", *words, clips="released.csv", root="released"))
    assert sorted(web.requests) == ["film0.mp4", "film1.mp4", "film2.mp4"] and built["splits"]["train"]["records"] == 3
    assert not list((old / "released" / "media").rglob("*.mp4"))
    assert result(run("build", "--json", clips="released.csv", root="released"))["new"] is False
    assert len(web.requests) == 3


@pytest.mark.parametrize("lost", ["media", "film"])
def test_one_lost_file_is_enough_to_ask(run, old, web, lost):
    if lost == "media":
        next((old / "root" / "media").rglob("*.webm")).unlink()
    else:
        (old / "films" / "film3.mp4").unlink()
    refused = run("build")
    name = {"media": "web-whole", "film": "local-3"}[lost]
    assert refused.returncode == 2 and f"1 of them lack media, such as '{name}'" in refused.stderr
    assert web.requests == [] and len(manifests(old / "root")) == 1


def test_an_old_shard_is_mended_as_far_as_it_can_be(old, mbt_data, ffmpeg_program):
    """What is to be decoded again would not be what it was: this ffmpeg says that it is another."""
    root = old / "root"
    (first,) = manifests(root)
    newer = old / "ffmpeg"
    newer.write_text(
        f'#!/bin/sh\n[ "$1" = -version ] && echo ffmpeg version newer && exit\nexec {ffmpeg_program} "$@"\n'
    )
    newer.chmod(0o755)
    one, other = (shard for shard in first.splits["train"].shards)
    whole = (root / one.index_path).read_bytes()
    (root / one.index_path).write_bytes(whole[:100])
    damaged = bytearray((root / other.path).read_bytes())
    damaged[5000] ^= 1
    (root / other.path).write_bytes(damaged)
    mended = mbt_data("verify", "--snapshot=all", "--repair", f"--output={root}", f"--ffmpeg={newer}")
    assert mended.returncode == 1
    assert (root / one.index_path).read_bytes() == whole
    (line,) = [line for line in mended.stdout.splitlines() if "not repaired" in line]
    assert "it was made by another encoder" in line and "differs" in line


def test_a_clip_is_purged_from_snapshots_of_both_encoders(run, old, mbt_data):
    result(run("build", "--json"))
    (old / "purge.txt").write_text("web-0\n")
    output = f"--output={old}/root"
    purged = mbt_data("purge", output, f"--clips={old}/purge.txt", "--reason=asked", "--yes", "--overlapping=drop")
    assert purged.returncode == 0, purged.stderr + purged.stdout
    checked = mbt_data("verify", "--snapshot=all", output)
    assert checked.returncode == 0, checked.stdout
    # local-0 is the same film, under another name.
    assert [(found.num_records, len(found.amended)) for found in manifests(old / "root")] == [(7, 1), (8, 1)]


def test_old_indices_and_ledgers_are_read_as_they_are(pristine):
    refused = []
    for path in sorted((pristine / "root" / "shards").glob("*.index")):
        index = shard_index.load(path.read_bytes())
        assert index.version == 2 and index.treatments == {} and shard_index.dump(index) == path.read_bytes()
        refused += [(clip["id"], clip["rule"]) for clip in index.absent]
    assert sorted(refused) == [("junk", 1), ("refused-at-decode", 1)]
    attempts = ledger.read(str(pristine / "root"))
    assert attempts.schema.names == ledger.ATTEMPTS.names and attempts["rule"].null_count == len(attempts) == 14


def test_newer_rules_alone_cost_no_decoding_but_of_what_was_refused(make_media, ffmpeg_program, tmp_path):
    """The encoder is the same: shards get another name, records are copied."""
    film, page = make_media(tmp_path / "film.mp4", seconds=0.2), tmp_path / "page.mp4"
    page.write_text("a page")

    def built(rules: int, predecessor: str | None):
        dataset = Dataset(
            name="d",
            num_shards={"train": 1},
            salt="s",
            labels=("a",),
            encoder={},
            canary="",
            index_version=3,
            rules=rules,
        )
        clips = [
            {"id": path.stem, "source": str(path), "start_us": 0, "end_us": 200_000, "media": "", "digest": path.stem}
            for path in (film, page)
        ]
        same = {"outcome": "ok", "media_start_us": 0, "label_indices": [0], "labels": ["a"]}
        made = [plan.with_digests(clip | same, dataset.identity, str(tmp_path)) for clip in clips]
        inputs = [clip["inputs"] for clip in made]
        name = plan.fingerprint(dataset.shard_identity, "train", 0, 1, inputs)
        task = plan.Task(
            split="train",
            shard=0,
            num_shards=1,
            first_row=0,
            num_rows=2,
            fingerprint=name,
            identity=dataset.identity,
            predecessor=predecessor,
        )
        builder = Builder(
            root=str(tmp_path / "out"),
            dataset_name="d",
            media_root=str(tmp_path),
            program=ffmpeg_program,
            threads=1,
            time_limit_s=60,
            rules=rules,
        )
        return task.stem, builder.build(task, made)

    first, one = built(RULES, None)
    again, same = built(RULES, first)
    newer, other = built(RULES + 1, first)
    assert one.counts == {DECODED: 2} and again == first and not same.counts
    assert newer != first and other.counts == {DECODED: 1, COPIED: 1}
