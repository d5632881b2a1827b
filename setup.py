"""Installs the top-level folders as `mbt.pipeline`, `mbt.model`, `mbt.train` and `mbt.schemas`."""

from setuptools import find_packages, setup

FOLDERS = ("pipeline", "model", "train", "schemas")

packages = [
    f"mbt.{package}"
    for folder in FOLDERS
    for package in (folder, *(f"{folder}.{inner}" for inner in find_packages(folder)))
]

setup(
    packages=packages,
    package_dir={f"mbt.{folder}": folder for folder in FOLDERS},
    package_data={
        "mbt.pipeline": ["canary.mp4"],
        "mbt.pipeline.curves": ["*.cube"],
        "mbt.pipeline.annotations": ["audioset_labels.csv"],
        "mbt.pipeline.report": ["*.j2", "*.css", "*.js"],
    },
)
