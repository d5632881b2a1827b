import subprocess
import sys


def test_a_command_starts_without_pandas_which_is_there_afterwards():
    code = (
        "import sys, pyarrow; from mbt.pipeline import run; table = pyarrow.table({'clip': ['a', 'b']});"
        "pyarrow.repeat('a', 2); table['clip'].to_numpy(); assert 'pandas' not in sys.modules;"
        "print(len(table.to_pandas()), sys.modules['pandas'].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "pandas"], done.stderr
