"""Which folder may import what. Imports inside functions count too."""

import ast
import pathlib
import sys

import pytest

pytestmark = pytest.mark.quick

ROOT = pathlib.Path(__file__).parents[1]
OURS: dict[str, set[str]] = {
    "schemas": set(),
    "pipeline": {"schemas"},
    "model": set(),
    "train": {"schemas", "model"},
}
# Prediction decodes as datasets are built: with these, from one module of training.
THE_DOOR = ROOT / "train" / "media.py"
_DECODER = ("attempts", "decode", "download", "ffmpeg", "hosts", "one_sense", "outcomes", "probe", "record", "youtube")
DECODER = {f"mbt.pipeline.{name}" for name in _DECODER}
# Beyond the standard library.
SCHEMAS_MAY_IMPORT = {"numpy", "google.protobuf", "google_crc32c"}
NEVER_IN_A_WORKER = {"tensorflow", "tensorflow_io", "jax", "flax", "optax", "orbax"}


def modules(folder: str) -> list[pathlib.Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: pathlib.Path) -> list[str]:
    """Dotted names that a file imports, those of `from x import y` as `x.y`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def is_within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", OURS)
def test_imports_of_ours_point_one_way(folder):
    allowed = {f"mbt.{other}" for other in (OURS[folder] | {folder})}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(folder)
        for name in imports(path)
        if is_within(name, {"mbt", *OURS}) and not is_within(name, allowed | (DECODER if path == THE_DOOR else set()))
    ]
    assert not wrong


def test_schemas_need_little():
    allowed = SCHEMAS_MAY_IMPORT | {"mbt.schemas"} | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("schemas")
        for name in imports(path)
        if not is_within(name, allowed)
    ]
    assert not wrong


def test_pipeline_never_imports_a_training_library():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules("pipeline")
        for name in imports(path)
        if is_within(name, NEVER_IN_A_WORKER)
    ]
    assert not wrong
