"""Paths as people type them, also where the shell leaves them as they are."""

import pytest

from mbt.schemas import paths


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("~/runs/x", "HOME/runs/x"),
        ("~", "HOME"),
        ("a/~/b", "a/~/b"),
        ("./~x", "./~x"),
        ("gs://bucket/~/x", "gs://bucket/~/x"),
        ("/a b", "/a b"),
    ],
)
def test_a_tilde_is_opened_where_it_stands_for_home(monkeypatch, text, opened):
    monkeypatch.setenv("HOME", "HOME")
    assert paths.anywhere(text) == opened


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "  ", "~nobody-of-that-name/x"])
def test_what_cannot_be_meant_is_refused(text):
    with pytest.raises(paths.PathError, match=r"is empty|no such user here"):
        paths.anywhere(text)


@pytest.mark.quick
def test_a_local_path_is_on_no_store():
    with pytest.raises(paths.PathError, match="is on no disk"):
        paths.local("s3://bucket/x")


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--annotations=a.csv", "--output="),
        ("build", "--annotations=", "--output=x"),
        ("status", "--annotations=a.csv", "--output=~nobody-of-that-name/x"),
        ("purge", "--output=x", "--clips=y", "--reason=z", "--workdirs="),
        ("show", "--output=", "latest"),
    ],
    ids=" ".join,
)
def test_mbt_data_refuses_them_in_one_line(mbt_data, tmp_path, words):
    ended = mbt_data(*words, cwd=tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "is empty; is a variable of the command unset?" in line or "no such user here" in line
    assert list(tmp_path.iterdir()) == []
