"""A folder that is replaced as a whole: by another, or not at all."""

import errno

import pytest
from safetensors import SafetensorError

from train.replaced_folder import replaced


def test_it_is_replaced_at_the_end(tmp_path):
    for name in ("a", "b"):
        with replaced(tmp_path / "export") as partial:
            (partial / name).touch()
            assert not (tmp_path / "export" / name).exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "b"]


@pytest.mark.parametrize(
    "failure",
    [SafetensorError("I/O error: No space left on device"), OSError(errno.ENOSPC, "No space left on device")],
)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, failure):
    (tmp_path / "export").mkdir()
    sentence = r"could not write .*export: .*No space left"
    with pytest.raises(OSError, match=sentence) as error, replaced(tmp_path / "export"):
        raise failure
    assert "make room" in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["export"]


def test_what_could_not_be_read_is_not_said_to_be_unwritable(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^weights are missing$"), replaced(tmp_path / "export"):
        raise FileNotFoundError("weights are missing")
