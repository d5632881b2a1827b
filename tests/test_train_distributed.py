"""Several devices and several processes give the losses of one."""

import json
import pathlib
import socket

import numpy as np
import pytest
from command_server import Running

from mbt.train import distributed
from mbt.train.errors import UsageError
from mbt.train.rendezvous import Processes

PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); import train_steps; train_steps.main()"
STEPS = 20
PLAIN = {"model.stochastic_depth": 0.3}
MIXED = PLAIN | {"mixup.alpha": 0.3, "mixup.group": 2, "mixup.by_modality": True, "train.accumulate": 2}


def start(mbt_train, devices: int, **words) -> Running:
    """A process with so many CPU devices. Its programs are compiled without optimization, which takes half the time."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    env = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    folder = pathlib.Path(__file__).parent
    return mbt_train.listen_python(PROGRAM, folder, json.dumps({"steps": STEPS} | words), env=env)


def finish(process: Running) -> dict:
    out, error = process.communicate(timeout=1500)
    assert process.returncode == 0, error[-2000:]
    return json.loads(out.splitlines()[-1])


def same_losses(result: dict, reference: dict) -> None:
    one = reference["losses"][0]
    assert len(one) == STEPS and one[-1] < 0.8 * one[0]  # a run that converges
    for losses in result["losses"]:
        np.testing.assert_allclose(losses, one, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_eight_devices_in_every_mesh_give_the_losses_of_one(mbt_train, config):
    one = finish(start(mbt_train, 1, meshes=[[1, 1]], config=config))
    eight = finish(start(mbt_train, 8, meshes=[[8, 1], [1, 8], [4, 2], [2, 4]], config=config))
    assert (one["devices"], eight["devices"]) == (1, 8)
    same_losses(eight, one)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(mbt_train):
    one = start(mbt_train, 1, meshes=[[1, 1]], config=MIXED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = {"meshes": [[4, 1], [2, 2]], "config": MIXED, "coordinator": address, "processes": 2}
    two = [start(mbt_train, 2, process=number, **words) for number in range(2)]
    results = [finish(process) for process in two]
    assert [(result["devices"], result["hosts"]) for result in results] == [(4, 2)] * 2
    reference = finish(one)
    for result in results:
        same_losses(result, reference)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("localhost:1234", None, None), "given together"),
        (("localhost", 2, 0), "must be HOST:PORT"),
        (("localhost:99999", 2, 0), "99999 is no port"),
        (("localhost:1234", 2, 2), "must be from 0 to 1"),
        (("localhost:1234", 0, 0), "must be positive"),
        ((None, None, None), "did not find each other: "),
    ],
)
def test_what_cannot_be_joined_is_refused(given, reason):
    with pytest.raises(UsageError, match=reason):
        distributed.find_place(Processes(*given), "")


def test_a_process_alone_is_the_only_host():
    assert (distributed.host(), distributed.hosts()) == (0, 1)
    assert (distributed.agreed(7), distributed.agreed(None)) == (7, None)
