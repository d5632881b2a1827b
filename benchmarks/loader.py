"""What the trainer's loader costs a clip, stage by stage, and how many clips a second it gives.

    python benchmarks/loader.py [--clips=24] [--batch=32] [--steps=20] [--root=ROOT]

Records are 10 s of 455 x 256 at 25 fps from the pipeline's own decoder, or those of a dataset of yours; batches of
windows of 8 s with 8 frames, random-resized crop, mirroring, SpecAugment, colour jitter. CPU milliseconds are of the
process, all threads. Goals: at most 15 ms a clip on the host, and at most 15 % of a record's bytes read.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import build_cpu

SECONDS = 10
AHEAD = 50  # more batches than are ever made ahead, so that as many are in the making at the end as at the start
GOAL_MS = 15
GOAL_BYTES = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24, help="records, copies of one (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="clips a batch (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="batches measured (default: %(default)s)")
    parser.add_argument("--root", help="a dataset with a split `train`, instead of generated records")
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)  # measure, on so many
    arguments = parser.parse_args()
    if arguments.cores:
        print(json.dumps(measure(arguments.root, arguments.batch, arguments.steps, arguments.cores)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or generate(Path(folder), arguments.clips)
        cores = min(2, len(os.sched_getaffinity(0)))
        results = {n: measured_apart(root, arguments.batch, arguments.steps, n) for n in range(1, cores + 1)}
    report(arguments.batch, results)


def generate(folder: Path, clips: int) -> str:
    """A dataset of copies of one clip."""
    from mbt.pipeline import decode, ffmpeg, logmel
    from mbt.schemas.fakes import FakeClip, write_snapshot

    media = build_cpu.generate(folder / "film.mp4")
    clip = decode.decode(media, 0, SECONDS * 1_000_000, program=ffmpeg.executable())
    mel = logmel.log_mel(clip.pcm, 100 * SECONDS)
    copies = [
        FakeClip(id=f"{i}", jpegs=list(clip.frames), size=(clip.height, clip.width), mel=mel, labels=(i % 5,))
        for i in range(clips)
    ]
    write_snapshot(folder, {"train": copies}, tuple("abcde"))
    return str(folder)


def measured_apart(root: str, batch: int, steps: int, cores: int) -> dict:
    """`measure` in a process of its own, whose thread pools are made for its cores."""
    words = [f"--root={root}", f"--batch={batch}", f"--steps={steps}", f"--cores={cores}"]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(root: str, size: int, steps: int, cores: int) -> dict:
    """CPU ms a clip by stage, of the whole loader, clips/s, and bytes read."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from mbt.train.records import make_reader, train_batches
    from mbt.train.snapshot import Records, load_manifest

    manifest = load_manifest(root, "latest")
    config = make_config(root, manifest, size, steps + AHEAD)
    reader = make_reader(Records(root, manifest.splits["train"]), config)
    batches = train_batches(reader, config)
    for _ in range(4):
        batch = next(batches)
    before, clock, cpu, clips = bytes_read(), time.perf_counter(), time.process_time(), steps * size
    for _ in range(steps):
        batch = next(batches)
    result = {
        "loader": 1000 * (time.process_time() - cpu) / clips,
        "rate": clips / (time.perf_counter() - clock),
        "bytes": (bytes_read() - before) / clips,
        "record": float(statistics.mean(record_bytes(reader.records))),
    }
    batches.close()
    return result | {"stages": stages(reader, config), "device": device_stages(config, batch)}


def make_config(root: str, manifest, size: int, steps: int):
    """Batches of so many windows of 8 s, with all augmentations."""
    from mbt.train.config import default_config, resolve

    config = default_config()
    config.data.update(root=root, color_jitter=0.8, color_drop=0.1)
    config.data.spec_augment.update(time_masks=1, frequency_masks=1)
    config.train.update(batch_size=size, steps=steps)
    return resolve(config, manifest)


def stages(reader, config) -> dict[str, float]:
    """CPU ms a clip of each host stage."""
    from mbt.train.records import train_plan

    plan = train_plan(reader, config).take(10)
    steps = list(plan.as_numpy_iterator())
    clips = len(steps) * config.train.batch_size
    names = ("asked", "positions", "epochs", "slots")

    def read(step):
        return reader.read(*(step[name] for name in names), random=True)

    columns = dict(zip(reader.columns, read(steps[0]), strict=True))
    result = {
        "order, seeds, windows": cpu_ms(lambda: list(plan.as_numpy_iterator())) / clips,
        "reading and checksums": cpu_ms(lambda: [read(step) for step in steps]) / clips,
    }
    return result | decoding_stages(config, steps[0]["keys"], columns)


def decoding_stages(config, keys, columns) -> dict[str, float]:
    """CPU ms a clip of what is done row by row: what each stage adds to those before it, inside tf.data."""
    import tensorflow as tf

    from mbt.train import augment, spec_augment

    data, repeats = config.data, 4
    added: dict[str, Callable[[dict], dict]] = {
        "": lambda row: row,
        "SpecAugment": lambda row: {
            "mel": spec_augment.mask(row["mel"], data.spec_augment, data.mel_mean, row["key"]),
        },
        "the crop's draw": lambda row: {
            "box": augment.random_box(row["sizes"], data.crop_area, data.crop_aspect, row["key"])
        },
        "decoding the crop of 8 frames": lambda row: {
            "frames": augment.decode_box(row["jpegs"], row["box"], data.frames)
        },
        "scaling to 224 x 224": lambda row: {"frames": augment.scale(row["frames"], data.crop)},
        "mirroring half of the clips": lambda row: {"frames": augment.random_flip(row["frames"], row["key"])},
    }
    rows = {"key": keys, "sizes": columns["sizes"], "mel": columns["mel"]}
    rows["jpegs"] = tf.constant(columns["jpegs"].tolist())
    dataset, costs = tf.data.Dataset.from_tensor_slices(rows).repeat(repeats), []
    for stage in added.values():
        dataset = dataset.map(lambda row, stage=stage: row | stage(row))
        costs.append(
            cpu_ms(lambda dataset=dataset: dataset.reduce(0, lambda n, _: n + 1)) / (repeats * config.train.batch_size)
        )
    return {name: cost - before for name, before, cost in zip(list(added)[1:], costs, costs[1:], strict=False)}


def device_stages(config, batch) -> dict[str, float]:
    """CPU ms a clip of what runs on the device, on the CPU backend."""
    import jax

    from mbt.train.device_augment import augment_on_device, device_columns

    step = jax.jit(lambda batch: augment_on_device(config, batch)["rgb"])
    part = {name: batch[name] for name in ("rgb", *device_columns(config))}
    return {"colour jitter and drop": cpu_ms(lambda: step(part).block_until_ready()) / config.train.batch_size}


def cpu_ms(work: Callable[[], object]) -> float:
    """Median of five, after one."""
    times = []
    for _ in range(6):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[1:])


def record_bytes(records) -> list[int]:
    places = (records.locate(number) for number in range(len(records)))
    return [int(index.records[row]["length"]) for _, index, row in places]


def bytes_read() -> int:
    """What this process has asked the system for, from the page cache or not."""
    return int(Path("/proc/self/io").read_text().split()[1])


def report(size: int, results: dict[int, dict]) -> None:
    first = results[1]
    print(f"batches of {size}, 8 frames of an 8 s window and its sound, all augmentations; CPU ms a clip on one core\n")
    print("| stage on the host | CPU ms |\n|---|---|")
    for name, value in first["stages"].items():
        print(f"| {name} | {value:.2f} |")
    print(f"| the whole loader, with batching and copies | {first['loader']:.1f} (goal: at most {GOAL_MS}) |\n")
    print("| stage on the device, on the CPU backend | CPU ms |\n|---|---|")
    for name, value in first["device"].items():
        print(f"| {name} | {value:.2f} |")
    share = first["bytes"] / first["record"]
    print(f"\nread: {first['bytes'] / 1e3:.0f} kB a clip, {share:.1%} of a record (goal: at most {GOAL_BYTES:.0%})")
    for cores, result in results.items():
        possible = cores * 1000 / result["loader"]
        print(f"{cores} core{'s' * (cores > 1)}: {result['rate']:.0f} clips/s; {possible:.0f} were they idle otherwise")


if __name__ == "__main__":
    main()
