"""Runs training steps on a mesh and prints their losses as JSON: what the tests of sharding start as processes.

python tests/train_steps.py '{"meshes": [[8, 1]], "steps": 20, "config": {}, "coordinator": "localhost:1234",
                              "processes": 2, "process": 0}'
"""

import json
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from mbt.train import distributed, sharding, step
from mbt.train.config import default_config
from mbt.train.rendezvous import Processes

ROWS, CLASSES = 16, 6


def tiny_config(**changes) -> ConfigDict:
    """A model of 2 layers and SGD at a rate at which it converges; as if resolved.

    Not AdamW: what has no gradient but rounding errors, such as the biases of keys, it moves as far as all else.
    """
    config = default_config()
    config.data.update(seconds=0.32, frames=1, crop=16, eval_split="", mel_mean=0.0, mel_stddev=1.0)
    config.model.update(width=16, depth=2, heads=2, mlp_dim=32, fusion_layer=1, num_classes=CLASSES)
    config.loss.name = "ce"
    config.optim.update(learning_rate=1.0, warmup=0.1)
    config.train.update(batch_size=ROWS, steps=20)
    config.update_from_flattened_dict(changes)
    return config


def tiny_batch(config: ConfigDict, number: int) -> dict[str, np.ndarray]:
    """All rows of one of four batches: noise, and in sight and sound what tells the class."""
    random = np.random.default_rng(number % 4)
    rows = config.train.batch_size
    classes = random.integers(0, CLASSES, rows)
    rgb = random.integers(0, 64, (rows, 1, 16, 16, 3)) + 30 * classes[:, None, None, None, None]
    spectrogram = random.normal(size=(rows, 32, 128, 1)) + classes[:, None, None, None]
    labels = np.eye(CLASSES)[classes]
    return {
        "rgb": rgb.astype(np.uint8),
        "spectrogram": spectrogram.astype(np.float32),
        "labels": labels.astype(np.float32),
    }


def host_part(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows that this process reads."""
    rows = len(batch["labels"]) // distributed.hosts()
    first = distributed.host() * rows
    return {name: values[first : first + rows] for name, values in batch.items()}


def train(config: ConfigDict, steps: int) -> tuple[step.State, list[dict[str, float]]]:
    """The state after some steps, and the metrics of each."""
    mesh = sharding.make_mesh(config)
    state, train_step = step.init_state(config, mesh), step.make_train_step(config, mesh)
    batches = (host_part(tiny_batch(config, number)) for number in range(steps))
    metrics = []
    for _, batch in sharding.placed(mesh, batches, (*config.modalities, "labels")):
        state, values = train_step(state, batch)
        metrics.append({name: float(value) for name, value in values.items()})
    return state, metrics


def main() -> None:
    words = json.loads(sys.argv[1])
    if "coordinator" not in words:
        run(words)
        return
    with distributed.joined(Processes(words["coordinator"], words["processes"], words["process"])):
        run(words)


def run(words: dict) -> None:
    result = {"devices": jax.device_count(), "hosts": distributed.hosts(), "losses": []}
    for data, fsdp in words["meshes"]:
        config = tiny_config(**words["config"], **{"train.mesh.data": data, "train.mesh.fsdp": fsdp})
        result["losses"].append([values["loss"] for values in train(config, words["steps"])[1]])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
