from pathlib import Path

import pytest

from engine.publishing.publication import RECORD, read_record
from templates.errors import ModelError
from templates.files import canonical_json
from tests.engine.publishing.published import small_record


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_folder_without_a_record(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / RECORD).write_text(content)
    with pytest.raises(ModelError, match=r"studio_run.json\)\. .*"):
        read_record(tmp_path)


def test_a_record_of_a_later_version_names_the_setting(tmp_path: Path) -> None:
    content = small_record(tmp_path).model_dump(mode="json") | {"colour": 1}
    (tmp_path / RECORD).write_text(canonical_json(content))
    with pytest.raises(ModelError, match="no setting called 'colour'"):
        read_record(tmp_path)
