import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = pathlib.Path(__file__).parents[1] / "demo" / "report_picture.py"


@pytest.mark.slow
def test_the_picture_shows_a_screen_and_a_phone_in_the_dark(tmp_path):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium on PATH: `make browser` installs it")
    image = tmp_path / "report.png"
    words = [f"--output={image}", "--train_per_class=1", "--test_per_class=1", "--months=2"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert image.stat().st_size < 200_000
    with Image.open(image) as picture, Image.open(SCRIPT.parents[1] / "docs" / "report.png") as documented:
        assert picture.size == documented.size == (1384, 1030)
        grey = np.asarray(picture.convert("L"))
    assert np.median(grey[:, :1000]) > 240 and np.median(grey[:, 1024:]) < 40
