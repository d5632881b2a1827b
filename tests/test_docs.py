"""What the documents tell people to run is run, and what they link to is there."""

import csv
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from fake_youtube import FakeYouTube, Video

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: pathlib.Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(document: pathlib.Path) -> list[str]:
    return [
        line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()
    ]


def is_make(command: str) -> bool:
    return shlex.split(command)[0] == "make"


def name(document: pathlib.Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.fixture
def folder_of_a_reader(tmp_path, make_media) -> pathlib.Path:
    """Where the README is followed: its CSV, the videos that the CSV names, and the virtual environment."""
    (annotations,) = blocks(ROOT / "README.md", "csv")
    (tmp_path / "clips.csv").write_text(annotations)
    for path in {row["video_path"] for row in csv.DictReader(annotations.splitlines())}:
        video = tmp_path / "videos" / path
        video.parent.mkdir(parents=True, exist_ok=True)
        make_media(video, seconds=10)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    ids = [f"readers_{number:03d}" for number in range(3)]
    (tmp_path / "eval_segments.csv").write_text("".join(f'{name}, 1.000, 3.000, "/m/09x0r"\n' for name in ids))
    (tmp_path / "copies").mkdir()
    make_media(tmp_path / "copies" / f"{ids[2]}.mp4", seconds=2)
    return tmp_path


@pytest.fixture
def environment_of_a_reader(folder_of_a_reader):
    """With a YouTube that has one video."""
    video = Video(formats={18: folder_of_a_reader / "videos" / "kitchen.mp4"}, seconds=10)
    with FakeYouTube(default=video) as youtube:
        yield youtube.environment()


def commands_of_the_readme() -> list[str]:
    return [command for command in commands(ROOT / "README.md") if not is_make(command)]


def test_readme_commands_run(folder_of_a_reader, environment_of_a_reader, mbt_data, mbt_train):
    """Each forked, and what JAX compiles is not optimized, as in other tests."""
    activate, *rest = map(shlex.split, commands_of_the_readme())
    assert activate == [".", ".venv/bin/activate"]
    said = ""
    for program, *words in rest:
        run = {"mbt-data": mbt_data, "mbt-train": mbt_train}[program]
        done = run(*words, cwd=folder_of_a_reader, env=environment_of_a_reader)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        said += done.stdout
    check_what_a_reader_has(folder_of_a_reader, said)


@pytest.mark.slow
def test_readme_commands_run_as_they_stand(folder_of_a_reader, environment_of_a_reader):
    result = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(commands_of_the_readme())],
        cwd=folder_of_a_reader,
        env=os.environ | environment_of_a_reader | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    check_what_a_reader_has(folder_of_a_reader, result.stdout)


def check_what_a_reader_has(folder: pathlib.Path, said: str) -> None:
    assert "eval: 3 clips, 3 records" in said
    assert list(folder.glob("dataset/snapshots/*/manifest.json"))
    assert (folder / "runs/first/result.json").is_file()
    assert (folder / "kitchen.png").is_file()


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "demo" / "run.py"], ids=name)
def test_make_commands_exist(document):
    """Each target that is named, in a block or in the text, is one of the Makefile's."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = re.findall(r"(?:^|`)(?:CI=true )?make ([a-z]+)", document.read_text(), flags=re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize(
    "command", [command for document in DOCUMENTS for command in commands(document) if is_make(command)]
)
def test_make_commands_parse(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_other_documents_name_scripts_that_exist():
    """Beside make's targets they may only start a script; what else they told people to run would go untested."""
    for document in DOCUMENTS[1:]:
        for command in commands(document):
            program, *arguments = shlex.split(command)
            assert program == "make" or (program == "python" and (ROOT / arguments[0]).is_file()), command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_dependencies_are_all_explained():
    """Each direct dependency of pyproject.toml is named in docs/dependencies.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.match(r"[\w-]+", line)[0] for line in wanted} - {"mbt-flax"}
    text = (ROOT / "docs/dependencies.md").read_text()
    assert not [name for name in names if f"`{name}" not in text]


def test_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    assert all(f"make {target}" in listed for target in phony)


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("no-such-python", "is not here"),
        ("old-python", "needs Python 3.11 or 3.12"),
        ("bare-python", "cannot make virtual environments"),
    ],
)
def test_make_refuses_an_unfit_python(python, said, tmp_path):
    """In one line, before anything is written."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / ".ci").mkdir()
    for file in ("requirements.lock", "setup.py", "pyproject.toml", ".ci/uv.lock"):
        (tmp_path / file).touch()
    # Interpreters that answer as an older one, and as one without ensurepip, would.
    shadow(tmp_path / "old-python", "import sys; sys.version_info = (3, 10, 1)")
    shadow(tmp_path / "bare-python", "import sys; sys.modules['ensurepip'] = None")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    result = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    complaint = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(complaint) == 1
    assert said in complaint[0]
    assert not (tmp_path / ".venv").exists()


def shadow(program: pathlib.Path, first: str) -> None:
    """A Python that runs a line of its own before the program given with -c."""
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{first}\n$2"\n')
    program.chmod(0o755)
