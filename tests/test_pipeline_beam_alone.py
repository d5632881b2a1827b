import subprocess
import sys


def test_a_command_starts_without_pandas_which_is_there_afterwards():
    code = (
        "import sys; from mbt.pipeline import run; assert 'pandas' not in sys.modules;"
        "import pandas, pyarrow; print(len(pyarrow.table({'clip': ['a', 'b']}).to_pandas()), pandas.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "pandas"], done.stderr
