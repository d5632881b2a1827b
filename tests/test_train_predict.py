"""`mbt-train predict`: what it says of a file is what evaluation says of the same clip in a dataset."""

import itertools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from fake_youtube import FakeYouTube, Video
from flax import nnx
from media_server import serving
from PIL import Image

from mbt.model.config import Modality
from mbt.schemas import index as index_lib
from mbt.train import labels as labels_lib
from mbt.train import media, sharding
from mbt.train.answers import best_classes
from mbt.train.evaluate import Evaluator
from mbt.train.main import main
from mbt.train.predict import _names
from mbt.train.predictor import Predictor, _covered
from mbt.train.records import eval_batches, make_reader
from mbt.train.snapshot import Records, load_manifest
from mbt.train.step import eval_params, model_graph, model_inputs
from mbt.train.workdir import read_config

FLAGS = [
    *("--config.data.seconds=0.8", "--config.data.frames=2", "--config.data.crop=32", "--config.data.views=3"),
    *(f"--config.model.{key}" for key in ("width=16", "depth=2", "heads=2", "mlp_dim=16", "fusion_layer=1")),
    *("--config.train.batch_size=2", "--config.train.eval_batch_size=2", "--config.train.steps=3"),
    *("--config.optim.learning_rate=0.1", "--config.data.eval_split="),
]
# Of the test split: file, start and end in seconds; the first is longer than the window, the last shorter.
SPANS = [("long.mp4", 0.0, 3.0), ("long.mp4", 1.2, 2.56), ("short.mkv", 0.0, 0.6)]
LABELS = ("barking", "purring", "singing")


@pytest.fixture(scope="module")
def films(make_media, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("films")
    make_media(folder / "long.mp4", seconds=3, size="96x64", audio="sine=frequency=300:beep_factor=4")
    make_media(folder / "short.mkv", seconds=0.6, video="mandelbrot", audio="sine=frequency=900")
    make_media(folder / "train.mp4", seconds=1, audio="anoisesrc=seed=1")
    make_media(folder / "mute.mp4", seconds=1, audio=None)
    (folder / "notes.mp4").write_text("no film\n" * 100)
    return folder


@pytest.fixture(scope="module")
def run(films, mbt_data, write_csv, tmp_path_factory) -> pathlib.Path:
    """A run on a dataset of the films that `mbt-data build` made, in `dataset` beside it."""
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"video_path": name, "start": start, "end": end, "label": LABELS[i], "split": "test", "id": f"clip-{i}"}
        for i, (name, start, end) in enumerate(SPANS)
    ]
    rows += [row | {"split": "train", "id": f"train-{row['id']}"} for row in rows]
    csv = write_csv(folder / "clips.csv", rows)
    built = mbt_data("build", f"--annotations={csv}", f"--media_root={films}", f"--output={folder / 'dataset'}")
    assert built.returncode == 0, built.stderr
    root = f"--config.data.root={folder / 'dataset'}"
    assert main(["train", "--config=demo", f"--workdir={folder / 'run'}", root, *FLAGS]) == 0
    return folder / "run"


def predict(run: pathlib.Path, capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        status = main(["predict", f"--workdir={run}", *map(str, words)])
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def config(run):
    return read_config(run)


@pytest.fixture(scope="module")
def predictor(run, config) -> Predictor:
    return Predictor(config, run)


@pytest.fixture(scope="module")
def evaluated(run, config, predictor) -> tuple[Records, dict[str, np.ndarray]]:
    """The records of the test split, and the logits that evaluation gives each clip."""
    records = Records(config.data.root, load_manifest(config.data.root, "latest").splits["test"])
    evaluator = Evaluator(config, records, config.data.views, sharding.make_eval_mesh())
    found = evaluator.predict(predictor.state)
    return records, dict(zip(records.ids(), found.logits, strict=True))


@pytest.mark.parametrize("number", range(len(SPANS)))
def test_a_file_gives_what_its_record_gives(films, config, predictor, evaluated, tmp_path, number):
    name, start_s, end_s = SPANS[number]
    records, logits = evaluated
    span_us = (round(start_s * 1e6), round(end_s * 1e6))
    alone = Records(str(tmp_path), media.write_clip(str(films / name), span_us, [0], tmp_path))
    (from_file,) = eval_batches(make_reader(alone, predictor.config), predictor.config, 3)
    place = records.ids().index(f"clip-{number}")
    of_split = list(eval_batches(make_reader(records, config), config, 3))
    for key in ("rgb", "spectrogram"):
        rows = np.concatenate([batch[key] for batch in of_split])[3 * place :][:3]
        np.testing.assert_array_equal(from_file[key], rows)
    assert np.ptp(np.stack(list(logits.values())), axis=0).max() > 0.01
    np.testing.assert_allclose(predictor.logits(alone), logits[f"clip-{number}"], rtol=1e-5, atol=1e-6)


def test_without_a_span_all_of_the_file_is_taken(films, predictor, evaluated, tmp_path):
    split = media.write_clip(str(films / "long.mp4"), (0, None), [0], tmp_path)
    assert split.seconds == pytest.approx(3.0, abs=0.1)
    _, index, _ = Records(str(tmp_path), split).locate(0)
    assert abs(int(index.records[0]["num_frames"]) - 75) <= 1


def test_labels_and_probabilities_without_the_dataset(run, films, evaluated, capsys, tmp_path):
    alone = tmp_path / "run"
    shutil.copytree(run, alone)
    dataset = run.parent / "dataset"
    (alone / labels_lib.LABELS_FILE).unlink(missing_ok=True)
    film = films / "long.mp4"
    status, _, err = predict(alone, capsys, film, "--end=3", f"--data_root={tmp_path}")
    assert status == 2 and "no snapshot there" in err and len(err.splitlines()) == 1
    assert predict(alone, capsys, film, "--end=3")[0] == 0
    assert json.loads((alone / labels_lib.LABELS_FILE).read_text()) == list(LABELS)
    hidden = dataset.rename(tmp_path / "hidden")
    try:
        status, out, _ = predict(alone, capsys, film, "--end=3", "--top=2", "--json")
        assert status == 0
        (said,) = json.loads(out)["clips"]
        logits = evaluated[1]["clip-0"].astype(float)
        expected = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-expected)[:2].tolist()
        assert [(found["index"], found["label"]) for found in said["labels"]] == [(i, LABELS[i]) for i in best]
        assert [found["score"] for found in said["labels"]] == pytest.approx(expected[best].tolist(), rel=1e-4)
        assert (said["clip"], said["start"], said["end"], said["step"]) == (str(film), 0.0, 3.0, 3)
        status, out, _ = predict(alone, capsys, film, "--end=3")
        first, *lines = out.splitlines()
        assert first == f"{film}, 0 to 3 s"
        assert [line.split()[1] for line in lines] == [LABELS[i] for i in np.argsort(-expected)]
    finally:
        hidden.rename(dataset)


def test_what_cannot_be_read_is_one_line_each_and_the_rest_is_predicted(run, films, capsys):
    with serving() as server:
        server.files["served.mkv"] = (films / "short.mkv").read_bytes()
        bad = [films / "notes.mp4", films / "mute.mp4", films / "absent.mp4", films, f"{server.url}/404/gone.mp4"]
        good = [films / "short.mkv", f"{server.url}/served.mkv"]
        status, out, err = predict(run, capsys, *bad, *good, "--json")
    assert status == 1
    said = json.loads(out)
    assert [answer["clip"] for answer in said["clips"]] == [str(clip) for clip in good]
    assert said["clips"][0]["labels"] == said["clips"][1]["labels"]
    assert list(said["failed"]) == [str(clip) for clip in bad]
    lines = [line for line in err.splitlines() if line.startswith("mbt-train predict: ")]
    for clip, line, complaint in zip(
        bad, lines, ["not_media", "no_audio", "no such file", "not a file", "cannot be fetched: "], strict=True
    ):
        assert line.startswith(f"mbt-train predict: {clip}: ") and complaint in line


@pytest.fixture(scope="module")
def of_one_sense(run, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Runs that only hear and only see, on the same dataset."""
    folder, root = tmp_path_factory.mktemp("senses"), f"--config.data.root={run.parent / 'dataset'}"
    for name in ("rgb", "spectrogram"):
        command = ["train", "--config=demo", f"--workdir={folder / name}", root, *FLAGS, f"--config.modalities={name}"]
        assert main(command) == 0
    return {name: folder / name for name in ("rgb", "spectrogram")}


def scores_of(run, capsys, clip) -> list[float]:
    status, out, err = predict(run, capsys, clip, "--json")
    assert status == 0, err
    found = json.loads(out)["clips"][0]["labels"]
    return [one["score"] for one in sorted(found, key=lambda one: one["index"])]


@pytest.mark.parametrize("extension", ["wav", "mp3", "flac", "m4a"])
def test_a_run_that_only_hears_needs_no_picture(of_one_sense, films, make_media, capsys, tmp_path, extension):
    film, sound = films / "long.mp4", tmp_path / f"sound.{extension}"
    make_media(sound, seconds=3, video=None, audio="sine=frequency=300:beep_factor=4")
    alone, with_picture = (scores_of(of_one_sense["spectrogram"], capsys, clip) for clip in (sound, film))
    np.testing.assert_allclose(alone, with_picture, atol=0.02)  # other codecs
    status, _, err = predict(of_one_sense["rgb"], capsys, sound)
    assert status == 1 and "no_video" in err


def test_a_run_that_only_sees_needs_no_sound(of_one_sense, films, make_media, capsys, tmp_path):
    mute, film = tmp_path / "mute.mp4", films / "long.mp4"
    make_media(mute, seconds=3, size="96x64", audio=None)
    alone, with_sound = (scores_of(of_one_sense["rgb"], capsys, clip) for clip in (mute, film))
    np.testing.assert_allclose(alone, with_sound, atol=1e-3)
    status, _, err = predict(of_one_sense["spectrogram"], capsys, mute)
    assert status == 1 and "no_audio" in err


def test_a_start_past_the_end_is_one_line(run, films, capsys):
    status, out, err = predict(run, capsys, films / "long.mp4", "--start=60")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert "start_past_end" in line


def drawn(run: pathlib.Path, capsys, clip: pathlib.Path, *words) -> list[np.ndarray]:
    """The columns of the picture of rollout, the original first."""
    path = clip.parent / "rollout.png"
    status, _, err = predict(run, capsys, clip, f"--rollout={path}", *words)
    assert status == 0, err
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    columns = 3 if words else 2
    assert picture.shape[1] == 600 * columns
    return np.array_split(picture, columns, axis=1)


def has_colour(spectrogram: np.ndarray) -> bool:
    """Of the lower half of a column, where all but heat is gray."""
    below = spectrogram[len(spectrogram) // 2 + 20 :]
    return bool((np.ptp(below, axis=-1) > 60).any())


def test_rollout_is_drawn(run, films, capsys):
    original, heat = drawn(run, capsys, films / "long.mp4")
    assert not has_colour(original) and has_colour(heat)


def test_another_run_is_drawn_beside_it(run, of_one_sense, films, capsys):
    same = shutil.copytree(run, run.parent / "b" / run.name)  # as the seeds of a sweep: the ends of both are alike
    original, heat, same = drawn(run, capsys, films / "long.mp4", f"--beside={same}")
    assert not has_colour(original) and has_colour(heat) and has_colour(same)
    original, heat, deaf = drawn(run, capsys, films / "long.mp4", f"--beside={of_one_sense['rgb']}")
    assert not has_colour(original) and has_colour(heat) and not has_colour(deaf)


def test_a_run_that_looks_elsewhere_is_not_drawn_beside(run, capsys, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["data"]["views"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused = f"--beside={tmp_path}"
    status, _, err = predict(run, capsys, "a.mp4", "--rollout=a.png", refused)
    assert (status, err) == (2, f"mbt-train predict: {refused}: no checkpoint there yet\n")
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    status, _, err = predict(run, capsys, "a.mp4", "--rollout=a.png", refused)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "must look at the same windows and have the same heads: data.views is 2, not 3" in err
    status, _, err = predict(run, capsys, "a.mp4", "--rollout=a.png", f"--beside={run}")
    assert (status, len(err.splitlines())) == (2, 1) and "is the run of --workdir" in err


def test_nothing_is_drawn_over_pixels_that_fill_no_patch():
    frames = Modality(name="rgb", shape=(2, 40, 48), channels=3, patch=(2, 16, 16))
    rows = Modality(name="spectrogram", shape=(150, 128), channels=1, patch=(16, 16))
    assert _covered((10, 20, 200, 240), frames) == (10, 20, 160, 240)
    assert _covered((0, 0, 150, 128), rows) == (0, 0, 144, 128)


def test_runs_are_named_by_what_differs():
    ends = [("s/b-8/seed-0", "s/c-8/seed-0"), ("a/both", "a/vanilla")]
    found = [_names([pathlib.Path(path) for path in pair]) for pair in ends]
    assert found == [["b-8/seed-0", "c-8/seed-0"], ["both", "vanilla"]]


def test_the_view_of_the_rollout_is_the_surest(predictor):
    random = np.random.default_rng(0)
    views = {
        "rgb": random.integers(0, 255, (3, 2, 32, 32, 3)).astype(np.uint8),
        "spectrogram": random.normal(-5, 3, (3, 80, 128, 1)).astype(np.float32),
    }
    graph = model_graph(predictor.config)
    run = jax.jit(lambda state: nnx.merge(graph, eval_params(state))(model_inputs(state, views))["logits"])
    logits = run(predictor.state)
    view, maps = predictor.trace(views)
    other = (view + 1) % 3
    asked, of_other = predictor.trace(views, other)
    alone = predictor.trace({name: values[other : other + 1] for name, values in views.items()})[1]
    assert asked == other
    jax.tree.map(lambda one, same: np.testing.assert_allclose(one, same, rtol=1e-4), of_other, alone)
    assert view == logits[:, logits.mean(axis=0).argmax()].argmax()
    assert jax.tree.map(np.shape, maps) == {"rgb": (2, 2, 2), "spectrogram": (5, 8)}
    assert 0.3 < sum(float(shares.sum()) for shares in maps.values()) < 1  # the rest is of CLS and bottlenecks


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--start=-1"], "--start=-1: must be 0 or more"),
        (["--start=nan"], "--start=nan: must be 0 or more"),
        (["--start=2", "--end=2"], "--end=2: must be after --start"),
        (["--end=1000"], "by 300 s at most"),
        (["--top=0"], "--top=0"),
        (["b.mp4", "--rollout=a.png"], "is of one clip, and 2 are given"),
        (["--rollout=absent/a.png"], "folder does not exist"),
        (["--rollout=."], "--rollout=.: cannot be written"),
        (["--beside=b"], "--beside=b: is for a picture; add --rollout=PNG"),
        (["--rollout=a.png", "--beside=absent"], "--beside=absent: no run there"),
        (["--config.seed=1"], "unknown argument"),
    ],
)
def test_a_wrong_command_is_one_line(run, capsys, words, complaint):
    status, out, err = predict(run, capsys, "a.mp4", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert complaint in line


def test_without_a_run_or_a_checkpoint(run, capsys, tmp_path):
    assert "no run there" in predict(tmp_path, capsys, "a.mp4")[2]
    shutil.copy(run / "config.json", tmp_path)
    status, _, err = predict(tmp_path, capsys, "a.mp4")
    assert status == 2 and "no checkpoint there" in err


def test_damaged_labels_are_refused(run, capsys, tmp_path):
    alone = tmp_path / "run"
    shutil.copytree(run, alone)
    for text in ("[1]", "{", '{"a": 1}'):
        (alone / labels_lib.LABELS_FILE).write_text(text)
        status, _, err = predict(alone, capsys, "a.mp4")
        assert status == 2 and "labels.json" in err and len(err.splitlines()) == 1


def test_a_film_that_is_too_long_says_what_to_choose(make_media, tmp_path):
    film = make_media(tmp_path / "long.mkv", seconds=301, size="16x16", rate="1")
    with pytest.raises(media.MediaError, match="is 301 s long: choose at most 300 s"):
        media.write_clip(str(film), (0, None), [0], tmp_path)
    split = media.write_clip(str(film), (290_000_000, None), [0], tmp_path)
    assert split.seconds == pytest.approx(11, abs=0.1)


def test_youtube(films, tmp_path, monkeypatch):
    """The same bytes as those of the file that YouTube serves."""
    video = "aaaaaaaaaaa"
    with FakeYouTube({video: Video(formats={18: films / "long.mp4"}, seconds=3)}) as youtube:
        for name, value in youtube.environment().items():
            monkeypatch.setenv(name, value)
        (tmp_path / "youtube").mkdir()
        url = f"https://www.youtube.com/watch?v={video}"
        media.write_clip(url, (1_000_000, 2_000_000), [0], tmp_path / "youtube")
    (tmp_path / "file").mkdir()
    media.write_clip(str(films / "long.mp4"), (1_000_000, 2_000_000), [0], tmp_path / "file")
    one, other = ((tmp_path / name / "clip.index").read_bytes() for name in ("youtube", "file"))
    checksums = [index_lib.load(data).pieces["crc32c"].tolist() for data in (one, other)]
    assert len(checksums[0]) == 26 and checksums[0] == checksums[1]


@pytest.mark.parametrize(("loss", "heads"), [("bce", ()), ("ce", ()), ("ce", (3, 4)), ("ce", (2, 3, 2))])
def test_the_best_classes(loss, heads):
    random = np.random.default_rng(0)
    for _ in range(20):
        logits = random.normal(0, 2, 7).astype(np.float32)
        labels = [f"label {number}" for number in range(7)]
        found = best_classes(logits, labels, loss=loss, heads=heads, count=3)
        if loss == "bce":
            chances = 1 / (1 + np.exp(-logits.astype(float)))
        else:
            ends = np.cumsum(heads)[:-1] if heads else []
            parts = [np.exp(part.astype(float)) for part in np.split(logits, ends)]
            chances = np.concatenate([part / part.sum() for part in parts])
        if heads:
            firsts = np.cumsum((0, *heads[:-1]))
            of_heads = [range(first, first + size) for first, size in zip(firsts, heads, strict=True)]
            every = sorted(itertools.product(*of_heads), key=lambda indices: -np.prod(chances[list(indices)]))
            assert [tuple(action["index"]) for action in found["action"]] == every[:3]
            scores = [np.prod(chances[list(indices)]) for indices in every[:3]]
            assert [action["score"] for action in found["action"]] == pytest.approx(scores)
            assert found["action"][0]["label"] == " ".join(labels[index] for index in every[0])
            assert len(found) == len(heads) + 1
        else:
            best = np.argsort(-chances)[:3].tolist()
            expected = [{"index": i, "label": labels[i], "score": pytest.approx(chances[i])} for i in best]
            assert found == {"labels": expected}
