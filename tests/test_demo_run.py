import csv
import os
import pathlib
import re
import subprocess
import sys

import pytest

DEMO = pathlib.Path(__file__).parents[1] / "demo"
HEADER = "video_path,start,end,label"


@pytest.fixture
def demo(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DEMO))
    import run

    monkeypatch.chdir(tmp_path)
    return run


def write(name: str, *lines: str) -> pathlib.Path:
    path = pathlib.Path(name)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_own_csv_without_split_holds_out_whole_videos(demo, capsys):
    rows = [f"v{video}.mp4,{start},{start + 2},label{video % 3}" for video in range(50) for start in (0, 3)]
    clips = demo.own_clips(write("mine.csv", HEADER, *rows), None)
    with clips.annotations.open(newline="") as file:
        written = list(csv.DictReader(file))
    splits = {}
    for row in written:
        splits.setdefault(row["video_path"], set()).add(row["split"])
    assert len(written) == 100
    assert all(len(split) == 1 for split in splits.values())
    assert 3 <= sum(split == {"test"} for split in splits.values()) <= 20
    assert clips.out == pathlib.Path("demo-out/mine")
    assert clips.media_root == pathlib.Path(".")
    assert not clips.multi_label
    assert "held out" in capsys.readouterr().out


def test_own_csv_with_split_is_taken_as_it_is(demo):
    annotations = write("mine.csv", f"{HEADER},split", "a.mp4,0,2,x,train", "b.mp4,0,2,x;y,", "c.mp4,0,2,y,val")
    clips = demo.own_clips(annotations, pathlib.Path("videos"))
    assert (clips.annotations, clips.media_root) == (annotations, pathlib.Path("videos"))
    assert clips.eval_split == "val"
    assert clips.multi_label


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,b", "1,2"], "header"),
        ([HEADER], "at least one row"),
        ([f"{HEADER},split", "a.mp4,0,2,x,train"], "one more"),
        ([f"{HEADER},split", "a.mp4,0,2,x,val", "a.mp4,2,4,x,test"], "must name `train`"),
        ([HEADER, "a.mp4,0,2,x"], "too few videos"),
    ],
)
def test_own_csv_that_cannot_serve_ends_in_one_line(demo, lines, said):
    with pytest.raises(SystemExit) as end:
        demo.own_clips(write("mine.csv", *lines), None)
    assert said in end.value.code
    assert "\n" not in end.value.code


@pytest.mark.parametrize("annotations", ["absent.csv", "."])
def test_own_csv_that_cannot_be_read_ends_in_one_line(demo, annotations):
    with pytest.raises(SystemExit, match="cannot be read"):
        demo.own_clips(pathlib.Path(annotations), None)


def test_fusion_must_win_clearly(demo):
    def results(audio, visual, fused):
        scores = {"audio only": audio, "visual only": visual, "fused": fused}
        return {name: {"top1": value} for name, value in scores.items()}

    demo.check_fusion_helps(results(0.25, 0.25, 0.9))
    demo.check_fusion_helps(results(0.25, 0.25, 0.9) | {"cross-attn": {"top1": 0.6}})
    with pytest.raises(SystemExit, match="the cross-attn model must beat one sense alone"):
        demo.check_fusion_helps(results(0.25, 0.25, 0.9) | {"cross-attn": {"top1": 0.4}})
    for losing in (results(0.25, 0.25, 0.3), results(0.2, 0.9, 0.95)):
        with pytest.raises(SystemExit, match="fused model must beat one sense alone"):
            demo.check_fusion_helps(losing)


def test_failed_command_ends_the_demo(demo, monkeypatch, capsys):
    monkeypatch.setattr(demo.sys, "executable", "/usr/bin/python3")
    with pytest.raises(SystemExit, match="failed with status 1"):
        demo.run("false", "--some=flag with space")
    assert "false '--some=flag with space'" in capsys.readouterr().out


@pytest.mark.slow
def test_every_strategy_learns_the_demo_which_repeats_nothing(tmp_path):
    """The whole of it, twice; it ends with an error itself where a fused model does not win clearly."""

    def run_demo() -> str:
        command = [sys.executable, str(DEMO / "run.py"), "--all_strategies"]
        environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        result = subprocess.run(command, cwd=tmp_path, env=environment, text=True, check=False, **pipes)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def modified() -> dict[pathlib.Path, int]:
        kinds = ("*.mp4", "*.tfrecord", "*.index", "manifest.json", "result.json")
        return {path: path.stat().st_mtime_ns for kind in kinds for path in (tmp_path / "demo-out").rglob(kind)}

    first, after_first = run_demo(), modified()
    table = first[first.index("== Results") : first.index("== Done")]
    top1 = dict(re.findall(r"^(fused|cross-attn|self-attn) +([\d.]+)%", table, flags=re.MULTILINE))
    assert sorted(top1) == ["cross-attn", "fused", "self-attn"]
    assert all(float(value) >= 90 for value in top1.values()), top1
    assert (tmp_path / "demo-out/shapes-and-sounds/demo.png").is_file()
    second = run_demo()
    assert modified() == after_first
    assert "0 shards built" in second
    assert table in second
