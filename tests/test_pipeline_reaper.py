import subprocess
import sys
import time

import psutil

STARTS_ONE = """
import subprocess
from mbt.pipeline import reaper

child = subprocess.Popen(["sleep", "600"], process_group=reaper.group(), stdout=subprocess.DEVNULL)
print(child.pid)
child.returncode = 0  # so that nobody says that it is left behind
"""


def test_a_child_ends_with_a_process_that_ends_without_a_word():
    done = subprocess.run([sys.executable, "-W", "error", "-c", STARTS_ONE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for _ in range(1000):
        if has_ended(int(done.stdout)):
            return
        time.sleep(0.02)
    raise AssertionError("it goes on")


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
