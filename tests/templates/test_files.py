import errno
import pickle
from pathlib import Path

import pytest

from templates.errors import DataError, RunError
from templates.files import canonical_json, disk_errors, write_atomically


def test_equal_values_give_equal_bytes() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == canonical_json({"a": "ä", "b": 1})
    assert canonical_json({"a": "ä"}) == '{"a": "ä"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EFBIG, "disk is full"),
        (errno.EROFS, "not permitted"),
        (errno.EACCES, "not permitted"),
    ],
)
def test_disk_errors_become_sentences(number: int, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence), disk_errors("the file"):
        raise OSError(number, "no")
    with pytest.raises(OSError, match="other"), disk_errors("the file"):
        raise OSError(errno.EIO, "other")


@pytest.mark.parametrize(
    "error",
    [
        Exception("I/O error: No space left on device (os error 28)"),
        Exception("File too large (os error 27)"),
    ],
)
def test_a_full_disk_is_recognised_in_a_library_s_own_words(error: Exception) -> None:
    with pytest.raises(RunError, match="The disk is full: the model could not be written"):
        with disk_errors("the model"):
            raise error
    with pytest.raises(ValueError, match="something else"), disk_errors("the model"):
        raise ValueError("something else")


def test_a_write_is_whole_or_absent(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", "one")
    write_atomically(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_error_keeps_its_parts_across_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("What", where="row 3", fix="Mend it")))  # noqa: S301
    assert type(error) is DataError and str(error) == "What (row 3). Mend it."
    assert (error.what, error.where, error.fix) == ("What", "row 3", "Mend it")
