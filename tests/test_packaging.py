"""The sdist holds every module, and the commands answer without heavy imports."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("schemas", "pipeline", "model", "train")
ROOT_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
HEAVY = {"apache_beam", "flax", "jax", "jinja2", "matplotlib", "optax", "orbax", "pyarrow", "tensorflow", "yt_dlp"}


def module_names() -> list[str]:
    """Every module of ours, as it is imported once installed."""
    paths = (path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    dotted = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return sorted(f"mbt.{name}" for name in dotted)


def run_python(*arguments: str, cwd: pathlib.Path | None = None) -> str:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert result.returncode == 0, result.stdout
    return result.stdout


def copy_source(target: pathlib.Path) -> pathlib.Path:
    """A copy to build in, so that nothing is left in this clone."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ROOT_FILES:
        shutil.copy(ROOT / name, target)
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """A folder into which pip installed the sdist. No build isolation, so no network."""
    folder = tmp_path_factory.mktemp("packaging")
    build_sdist = "import sys, setuptools.build_meta as hooks; hooks.build_sdist(sys.argv[1])"
    run_python("-c", build_sdist, str(folder), cwd=copy_source(folder / "source"))
    (sdist,) = folder.glob("mbt_flax-*.tar.gz")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    run_python("-m", "pip", "install", *options, "--target", str(folder / "site"), str(sdist))
    return folder / "site"


def test_every_module_is_found_once_installed(site):
    script = (
        "import importlib.util, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]: print(importlib.util.find_spec(name).origin)"
    )
    found = run_python("-c", script, str(site), *module_names()).split()
    assert len(found) == len(module_names())
    # This environment has an editable installation too, which must not answer instead.
    assert all(pathlib.Path(origin).is_relative_to(site) for origin in found), found


def test_data_files_are_installed(site):
    for name in ("canary.mp4", "report/page.html.j2", "report/style.css", "report/script.js"):
        assert (site / "mbt/pipeline" / name).stat().st_size > 0


def test_both_commands_are_installed(site):
    assert {path.name for path in (site / "bin").iterdir()} == {"mbt-data", "mbt-train"}


@pytest.mark.parametrize("module", ["mbt.pipeline.main", "mbt.train.main"])
def test_help_imports_nothing_heavy(module):
    script = (
        "import contextlib, importlib, io, sys\n"
        "main = importlib.import_module(sys.argv[1]).main\n"
        "sys.argv[1:] = ['--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit): main()\n"
        "assert out.getvalue().strip(), 'no help'\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert HEAVY.isdisjoint(run_python("-c", script, module).split())
