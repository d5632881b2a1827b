"""`mbt-train sweep`: the paper's ablations, run, killed, resumed and drawn."""

import csv
import fcntl
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from train_runs import fake_clip

from mbt.model.mbt import MBT
from mbt.schemas.fakes import write_snapshot
from mbt.train import config as config_lib
from mbt.train import workdir as workdir_lib
from mbt.train.commands.sweep import SWEEPS
from mbt.train.main import main
from mbt.train.sweeps.ablations import ABLATIONS, DATASETS
from mbt.train.sweeps.runs import _Datasets

SMALL = [
    "--config=demo",
    "--config.data.seconds=0.8",
    "--config.data.frames=2",
    "--config.data.crop=16",
    "--config.data.views=1",
    "--config.model.width=16",
    "--config.model.depth=2",
    "--config.model.heads=2",
    "--config.model.mlp_dim=16",
    "--config.model.fusion_layer=1",
    "--config.train.batch_size=4",
    "--config.train.eval_batch_size=4",
    "--config.train.eval_every=0",
    "--config.train.steps=200",
    "--config.train.checkpoint_every=20",
    "--config.mixup.group=4",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("dataset")
    clips = [fake_clip(number) for number in range(12)]
    write_snapshot(root, {"train": clips[:8], "test": clips[8:]}, ("a", "b", "c"))
    return root


def words(name: str, root: pathlib.Path, workdir: pathlib.Path, *flags: str) -> list[str]:
    return ["sweep", name, f"--workdir={workdir}", *SMALL, f"--config.data.root={root}", *flags]


def sweep(name: str, root: pathlib.Path, workdir: pathlib.Path, capsys, *flags: str) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        status = main(words(name, root, workdir, *flags))
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def points(name: str, *flags: str) -> list[tuple]:
    config = config_lib.load_config(ABLATIONS[name].config, [*SEVERAL.get(name, ()), *flags])
    return [(point.line, point.x) for point in ABLATIONS[name].points(config, lambda: 500_000)]


# What stands for several files or folders.
SEVERAL = {
    "initialisation": ["--config.init.vit=w/{weights}.npz"],
    "datasets": ["--config.data.root=all/{config}"],
    "digits": ["--config.data.root=all/{task}"],
}


def test_the_command_names_all_sweeps():
    assert tuple(ABLATIONS) == SWEEPS


LAYERS, SPANS = (0, 2, 4, 6, 8, 10, 12), (2, 4, 6, 8)


@pytest.mark.parametrize(
    ("name", "lines", "places"),
    [
        ("fig3_fusion_layer", ["bottleneck", "cross_attention"], LAYERS),
        ("bottlenecks", ["fused"], (4, 36, 64, 256, 1024)),
        ("fig4_span", ["audio", "visual", "fused"], SPANS),
        ("fig5_data", ["audio", "visual", "fused"], (20_000, 50_000, 100_000, 250_000, 500_000)),
        ("fig7_sharing", ["shared weights", "separate weights"], LAYERS),
        ("fig8_async", ["synchronous", "asynchronous"], SPANS),
        ("modality_mixup", ["fused"], ("mixup", "modality mixup")),
        ("backbone", ["fused"], ("vit_s", "vit_b", "vit_l")),
        ("initialisation", ["fused"], ("none", "imagenet1k", "imagenet21k")),
        ("update", ["fused"], ("mean", "in turn")),
        ("datasets", ["mid fusion", "late fusion"], DATASETS),
    ],
)
def test_models_are_the_papers(name, lines, places):
    assert points(name) == [(line, x) for line in lines for x in places]


def test_each_dataset_of_a_sweep_is_on_the_snapshot_that_its_own_runs_began_with(tmp_path):
    """Whatever the order of the runs' folders; of one dataset alone, wherever it is now."""
    begun = {"ten": ("z-ten", "roots/ten", "of ten"), "sixteen": ("a-sixteen", "roots/sixteen", "of sixteen")}

    def write(folder: str, data_root: str, snapshot: str) -> None:
        config = config_lib.load_config("demo", [f"--config.data.root={data_root}"])
        config.data.snapshot = snapshot
        (tmp_path / folder / "seed-0").mkdir(parents=True)
        workdir_lib.write_config(tmp_path / folder / "seed-0", config)

    write(*begun["ten"])
    assert _Datasets("latest", tmp_path)._name("moved/ten") == "of ten"
    write("z-ten-2", "moved/ten", "of ten")
    assert _Datasets("latest", tmp_path)._name("moved again/ten") == "of ten"
    write(*begun["sixteen"])
    datasets = _Datasets("latest", tmp_path)
    assert [datasets._name(f"roots/{task}") for task in ("ten", "sixteen", "other")] == [
        "of ten",
        "of sixteen",
        "latest",
    ]
    assert _Datasets("named", tmp_path)._name("roots/ten") == "named"


def test_digits_are_ten_for_each_sense_and_sixteen_for_both():
    alone = [(sense, task) for sense in ("audio", "visual") for task in ("ten", "sixteen")]
    square = [("audio square patches", "ten"), ("fused square patches", "sixteen")]
    assert points("digits") == [*alone, ("fused", "sixteen"), *square]


def test_places_follow_the_size_of_the_model_and_of_the_window():
    assert [x for _, x in points("fig7_sharing", "--config.model.depth=4")] == [0, 2, 4] * 2
    assert [x for _, x in points("fig8_async", "--config.data.seconds=2")] == [0.5, 1, 1.5, 2] * 2
    given = config_lib.load_config("audioset_mini", ["--config.init.vit=w/{size}.npz"])
    backbone = ABLATIONS["backbone"].points(given, lambda: 1)
    files = [(point.changes["model.fusion_layer"], point.changes["init.vit"]) for point in backbone]
    assert files == [(8, "w/vit_s.npz"), (8, "w/vit_b.npz"), (16, "w/vit_l.npz")]


def test_ablations_are_made_as_the_paper_made_them():
    """Before its modality mixup; Fig. 3, 7 and the bottlenecks before t = 8 s too; Fig. 7's one set in all layers."""
    given = config_lib.load_config("audioset_mini", SEVERAL["initialisation"])
    given.data.root = "all/{config}"
    for name in set(SWEEPS) - {"modality_mixup", "digits"}:
        models = [point.changes for point in ABLATIONS[name].points(given, lambda: 500_000)]
        assert all(changes["mixup.by_modality"] is False for changes in models), name
        if name in ("fig3_fusion_layer", "fig7_sharing", "bottlenecks"):
            assert {changes["data.seconds"] for changes in models} == {4}
    sharing = [point.changes for point in ABLATIONS["fig7_sharing"].points(given, lambda: 1)]
    assert {(changes["model.fusion"], changes["model.share_before"]) for changes in sharing} == {
        ("self_attention", True),
        ("cross_attention", False),
    }
    late = []
    for changes in (changes for changes in sharing if changes["model.fusion_layer"] == 12):
        config = config_lib.load_config("audioset_mini", ["--config.data.root=x"])
        config.update_from_flattened_dict(changes)
        config.model.num_classes = 527
        model = nnx.eval_shape(lambda config=config: MBT(config_lib.model_config(config), rngs=nnx.Rngs(0)))
        late.append(sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))))
    assert late[0] < 0.6 * late[1]  # two models, also where nothing is fused
    assert ABLATIONS["fig5_data"].config == "audioset_500k"


def test_datasets_are_compared_each_with_its_own_protocol(root, tmp_path, capsys):
    for name in DATASETS:
        (tmp_path / "all" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / name).symlink_to(root)
    splits = ["--config.data.train_split=train", "--config.data.eval_split=test", "--config.model.head_sizes=()"]
    flags = [*splits, f"--config.data.root={tmp_path}/all/{{config}}", "--print_commands", "--seeds=1"]
    assert main(["sweep", "datasets", f"--workdir={tmp_path / 'sweep'}", *flags]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [command[2] for command in commands] == [f"--config={name}" for name in DATASETS] * 2
    assert all(f"--config.data.root={tmp_path}/all/{c[2].partition('=')[2]}" in c for c in commands)


@pytest.mark.parametrize("name", [name for name in SWEEPS if name not in SEVERAL])
def test_printed_commands_are_whole_runs(name, root, tmp_path, capsys):
    """Each is a config that `mbt-train train` takes, on a snapshot that is named, in a folder of its own."""
    status, out, _ = sweep(name, root, tmp_path, capsys, "--print_commands", "--seeds=2", "--config.seed=5")
    assert status == 0
    workdirs, models = set(), set()
    for line in out.splitlines():
        program, command, chosen, workdir, *flags = shlex.split(line)
        assert (program, command, chosen) == ("mbt-train", "train", "--config=demo")
        config = config_lib.load_config("demo", flags)
        config_lib.check(config)
        assert config.data.snapshot == "first"
        assert config.seed in (5, 6)
        workdirs.add(workdir)
        models.add(config_lib.to_json(config))
    base = config_lib.load_config("demo", SMALL[1:])
    assert len(workdirs) == len(models) == 2 * len(list(ABLATIONS[name].points(base, lambda: 8)))
    assert list(tmp_path.iterdir()) == []


def test_fig3_is_at_half_of_the_window(root, tmp_path, capsys):
    _, out, _ = sweep("fig3_fusion_layer", root, tmp_path, capsys, "--print_commands", "--seeds=1")
    seconds = {config_lib.load_config("demo", shlex.split(line)[4:]).data.seconds for line in out.splitlines()}
    assert seconds == {0.4}


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("bottlenecks", ["--seeds=0"], "--seeds=0: must be positive"),
        ("bottlenecks", ["--report"], "no run is finished yet"),
        ("bottlenecks", ["--config.data.root="], "config.data.root="),
        ("bottlenecks", ["--config.data.eval_split=valid"], "has the splits train, test"),
        ("modality_mixup", ["--config.model.pooling=gap"], "config.mixup.by_modality=True"),
        ("fig4_span", ["--config.modalities=smell"], "config.modalities="),
        ("fig3_fusion_layer", ["--config.modalities=rgb"], "a sweep compares how two are fused"),
        ("fig9", [], "invalid choice: 'fig9'"),
        ("initialisation", [], "must name the weights that are compared, as DIR/{weights}.npz"),
        ("datasets", [], "must name the folders of several datasets, as DIR/{config}"),
        ("digits", [], "must name the datasets of both tasks, as DIR/{task}/dataset"),
        ("bottlenecks", ["--sede=1"], "unknown argument --sede=1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_the_first_run(name, flags, message, root, tmp_path, capsys):
    status, out, err = sweep(name, root, tmp_path, capsys, *flags)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def finish(workdir: pathlib.Path, name: str, scores: dict[tuple, float]) -> None:
    """Writes the results of runs as if they had been trained: top-1 by line, place and seed."""
    for key, top1 in scores.items():
        line, place, seed = key
        run = workdir / name / f"{line}-{place}" / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps({"top1": top1, "map": 0.5, "split": "test", "steps": 400}))


def test_the_report_is_of_what_is_finished(root, tmp_path, capsys):
    scores = {("fused", b, seed): b / 2000 + seed / 100 for b in (4, 36, 1024) for seed in (0, 1, 2)}
    del scores["fused", 36, 1]
    finish(tmp_path, "bottlenecks", scores)
    status, out, _ = sweep("bottlenecks", root, tmp_path, capsys, "--report", "--json")
    summary = json.loads(out)
    assert (status, summary["score"], summary["finished"], summary["runs"]) == (0, "top1", 8, 15)
    for row in summary["points"]:
        values = [value for (_, b, _), value in scores.items() if b == row["x"]]
        assert (row["runs"], row["mean"]) == (len(values), pytest.approx(np.mean(values)))
        assert row["stddev"] == pytest.approx(np.std(values, ddof=1))
    folder = tmp_path / "bottlenecks"
    assert json.loads((folder / "summary.json").read_text()) == summary
    with (folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["line"], int(row["x"]), int(row["seed"])): float(row["top1"]) for row in rows} == scores
    assert ink(folder / "figure.png") > 5
    _, left, _ = sweep("bottlenecks", root, tmp_path, capsys, "--print_commands")
    assert len(left.splitlines()) == 15 - 8


def test_another_score(root, tmp_path, capsys):
    finish(tmp_path, "backbone", {("fused", "vit_b", 0): 0.25})
    status, out, _ = sweep("backbone", root, tmp_path, capsys, "--report", "--score=map")
    assert status == 0
    assert out.splitlines()[0].split() == ["line", "x", "runs", "mAP", "+-"]
    assert out.splitlines()[1].split() == ["fused", "vit_b", "1", "0.5000", "0.0000"]
    status, _, err = sweep("backbone", root, tmp_path, capsys, "--report", "--score=bleu")
    assert (status, err) == (2, "mbt-train sweep: --score=bleu: the runs have top1, map\n")


def test_a_sweep_whose_runs_have_begun_goes_on_after_a_purge_and_from_another_run(root, tmp_path, capsys):
    """Their configs have what the data decided, and the step of the run that they started from."""
    source, data = tmp_path / "source", tmp_path / "data"
    shutil.copytree(root, data)
    model = [word for word in SMALL[1:] if "steps" not in word and "checkpoint" not in word]
    command = ["train", "--config=demo", f"--workdir={source}", f"--config.data.root={data}", *model]
    assert main([*command, "--config.train.steps=1"]) == 0
    flags = ["--seeds=1", f"--config.init.source={source}", "--config.train.steps=0", "--config.train.epochs=0.5"]
    _, out, _ = sweep("modality_mixup", data, tmp_path, capsys, *flags, "--print_commands")
    for line in out.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    (path,) = data.glob("snapshots/*/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["mel_mean"] += 0.5
    amendment = {"time": "2026-01-01T00:00:00+00:00", "reason": "", "num_clips": 1, "shards": []}
    manifest["amended"] = [amendment | {"old_clips_sha256": "", "new_clips_sha256": ""}]
    path.write_text(json.dumps(manifest))
    status, out, err = sweep("modality_mixup", data, tmp_path, capsys, *flags, "--report", "--json")
    assert status == 0, err
    assert json.loads(out)["finished"] == 2


def test_a_run_without_the_score_is_left_out_of_the_report(root, tmp_path, capsys):
    finish(tmp_path, "backbone", {("fused", "vit_b", 0): 0.25, ("fused", "vit_s", 0): 0.5})
    result = tmp_path / "backbone" / "fused-vit_s" / "seed-0" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"map": None}))
    status, out, err = sweep("backbone", root, tmp_path, capsys, "--report", "--score=map", "--json")
    assert status == 0 and "fused-vit_s/seed-0: has no map, and is left out" in err
    assert [row["x"] for row in json.loads(out)["points"]] == ["vit_b"]


def test_fig3_has_the_costs(root, tmp_path, capsys):
    scores = {(f, layer, 0): 0.1 * layer for f in ("bottleneck", "cross_attention") for layer in (0, 2)}
    finish(tmp_path, "fig3_fusion_layer", scores)
    status, out, _ = sweep(
        "fig3_fusion_layer", root, tmp_path, capsys, "--report", "--json", "--config.data.seconds=0.8"
    )
    costs = {(row["fusion"], row["fusion_layer"]): row["product_gmac"] for row in json.loads(out)["costs"]}
    assert status == 0
    assert costs["cross_attention", 0] > costs["bottleneck", 2] == costs["cross_attention", 2]
    with Image.open(tmp_path / "fig3_fusion_layer" / "figure.png") as picture:
        assert picture.width > 2 * picture.height


def ink(path: pathlib.Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).std())


def start(name: str, root: pathlib.Path, workdir: pathlib.Path, log: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mbt.train.main", *words(name, root, workdir, "--seeds=1", "--json")]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True)


def wait_for_a_checkpoint(run: pathlib.Path, process: subprocess.Popen, log: pathlib.Path) -> None:
    while not list(run.glob("checkpoints/[0-9]*0")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)


def is_free(run: pathlib.Path) -> bool:
    with (run / "lock").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(root, tmp_path, capsys):
    """First by SIGTERM, which ends the run too; then by SIGKILL, after which the run goes on, and is waited for."""
    first, second = (tmp_path / "modality_mixup" / f"fused-{word}" / "seed-0" for word in ("mixup", "modality-mixup"))
    log = tmp_path / "log"
    with start("modality_mixup", root, tmp_path, log) as process:
        wait_for_a_checkpoint(first, process, log)
        process.terminate()
        assert process.wait() == 143, log.read_text()
    assert is_free(first)
    assert not (first / "result.json").exists()
    started = (first / "times.jsonl").read_text().splitlines()[0]
    with start("modality_mixup", root, tmp_path, log) as process:
        wait_for_a_checkpoint(second, process, log)
        process.kill()
    assert (first / "times.jsonl").read_text().splitlines()[0] == started
    after_first = (first / "result.json").stat().st_mtime_ns
    was_running = not is_free(second)
    with start("modality_mixup", root, tmp_path, log) as process:
        out, _ = process.communicate()
        assert process.returncode == 0, log.read_text()
    assert ("waiting for another mbt-train" in log.read_text()) == was_running
    summary = json.loads(out)
    assert (summary["finished"], summary["runs"]) == (2, 2)
    assert (first / "result.json").stat().st_mtime_ns == after_first
    results = [json.loads((run / "result.json").read_text()) for run in (first, second)]
    assert [row["mean"] for row in summary["points"]] == [result["top1"] for result in results]
    assert [result["steps"] for result in results] == [200, 200]
    assert (first / "metrics.jsonl").read_text() != (second / "metrics.jsonl").read_text()
    assert ink(tmp_path / "modality_mixup" / "figure.png") > 5


def test_a_run_that_fails_does_not_keep_the_others_from_running(tmp_path):
    """The index of a shard is damaged: of the two runs that are left, the second is tried after the first."""
    write_snapshot(tmp_path / "data", {"train": [fake_clip(0)], "test": [fake_clip(1)]}, ("a", "b", "c"), num_shards=1)
    for index in tmp_path.glob("data/shards/*.index"):
        index.write_bytes(bytes(100))
    finish(tmp_path, "modality_mixup", {("fused", "modality-mixup", seed): 0.5 for seed in (0, 1)})
    flags = ["--seeds=2", "--config.data.share=0.99"]  # to know the ids of the clips, the index is read at once
    command = [sys.executable, "-m", "mbt.train.main", *words("modality_mixup", tmp_path / "data", tmp_path, *flags)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    broken = tmp_path / "modality_mixup" / "fused-mixup"
    assert f"2 of 4 runs failed, the first {broken / 'seed-0'}" in done.stderr.splitlines()[-1]
    summary = json.loads((tmp_path / "modality_mixup" / "summary.json").read_text())
    assert [(row["x"], row["runs"], row["mean"]) for row in summary["points"]] == [("modality mixup", 2, 0.5)]
