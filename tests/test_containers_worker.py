"""The image of data workers, as far as it can be looked at without Docker."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "containers" / "worker.Dockerfile"
LOCK = (ROOT / "requirements.lock").read_text()
WORKER_LOCK = (ROOT / "containers" / "worker.lock").read_text()
UV_LOCK = (ROOT / ".ci" / "uv.lock").read_text()
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """(keyword, the rest) of each instruction."""
    text = DOCKERFILE.read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines)]


def values(keyword: str) -> list[str]:
    return [rest for word, rest in instructions() if word == keyword]


def test_its_base_is_beams_image_by_the_digest_that_make_image_asks_for(tmp_path):
    assert values("ARG") == ["BASE"] and values("FROM") == ["${BASE}"]
    # A docker that answers as the registry would, and writes down what it is asked for.
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" != buildx ] || echo sha256:abc\n')
    docker.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    subprocess.run(["make", "-s", "image", "IMAGE=worker:1"], cwd=ROOT, env=env, check=True)
    asked, built = (tmp_path / "asked").read_text().splitlines()
    base = f"apache/beam_python3.11_sdk:{dict(PIN.findall(WORKER_LOCK))['apache-beam']}"
    assert base in asked.split() and f"BASE={base}@sha256:abc" in built.split()
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


def test_no_worker_is_root():
    assert values("USER") == ["10001"]
    # Beam's boot writes there.
    assert any("install -d -o beam -m 0750 /opt/apache/beam-venv" in run for run in values("RUN"))


@pytest.mark.parametrize("lock", [LOCK, WORKER_LOCK, UV_LOCK], ids=["requirements", "worker", "uv"])
def test_every_pin_has_hashes(lock):
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert entries and all(PIN.match(entry) and "--hash=sha256:" in entry for entry in entries)


def test_the_workers_pins_are_the_locks():
    assert set(PIN.findall(WORKER_LOCK)) <= set(PIN.findall(LOCK))
    makefile = (ROOT / "Makefile").read_text()
    assert dict(PIN.findall(UV_LOCK))["uv"] == re.search(r"^UV_VERSION := (.*)$", makefile, re.MULTILINE)[1]


def test_beams_entry_point_stays():
    assert {keyword for keyword, _ in instructions()} <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER"}


def test_all_that_is_copied_is_there_and_sent_to_the_builder():
    ignore = DOCKERFILE.with_name("worker.Dockerfile.dockerignore").read_text().splitlines()
    copied = [source for words in values("COPY") for source in words.split()[:-1]]
    assert copied and ignore[0] == "*"
    for source in copied:
        assert (ROOT / source).exists() and f"!{source}" in ignore


def test_what_the_package_is_made_of_is_copied():
    copied = " ".join(values("COPY"))
    setup = (ROOT / "setup.py").read_text()
    folders = re.findall(r'"(\w+)"', re.search(r"FOLDERS = \((.*)\)", setup)[1])
    assert folders and all(f"{folder} ./{folder}" in copied for folder in folders)
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'readme = "(.*)"', project)[1] in copied and re.search(r'license-files = \["(.*)"\]', project)[1]


def test_ffmpeg_and_the_javascript_runtime_come_with_the_base_installation_in_the_locks_versions():
    project = (ROOT / "pyproject.toml").read_text()
    base = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)[1]
    for package in ("imageio-ffmpeg", "deno", "apache-beam", "google-cloud-secret-manager"):
        assert f'"{package}' in base and re.search(rf"^{package}==", LOCK, re.MULTILINE)
    text = " ".join(values("RUN"))
    assert "--require-hashes --requirement worker.lock" in text and "--no-deps --no-build-isolation ." in text
