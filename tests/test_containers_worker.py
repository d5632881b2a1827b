"""The image of data workers, as far as it can be looked at without Docker."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "containers" / "worker.Dockerfile"
LOCK = (ROOT / "requirements.lock").read_text()


def instructions() -> list[tuple[str, str]]:
    """(keyword, the rest) of each instruction."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines)]


def values(keyword: str) -> list[str]:
    return [rest for word, rest in instructions() if word == keyword]


def test_it_is_built_on_beams_image_of_the_locks_version():
    arguments = dict(value.split("=") for value in values("ARG"))
    assert values("FROM") == ["apache/beam_python${PYTHON}_sdk:${BEAM}"]
    assert f"apache-beam=={arguments['BEAM']}" in LOCK.splitlines()
    assert f'requires-python = ">={arguments["PYTHON"]}"' in (ROOT / "pyproject.toml").read_text()


def test_beams_entry_point_stays():
    assert {keyword for keyword, _ in instructions()} <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN"}


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
    (install, _check) = values("RUN")
    assert "--constraint requirements.lock ." in install and "pip check" in install
