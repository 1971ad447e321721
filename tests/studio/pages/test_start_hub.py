import pytest

from data_prep.hub_tables import MAX_BYTES, HubFile, HubTable
from studio.pages.start_hub import chosen_table, table_choices
from templates.errors import DataError


def table(num_bytes: int, configuration: str = "default") -> HubTable:
    file = HubFile(path="data/train.parquet", num_bytes=num_bytes)
    return HubTable(configuration=configuration, split="train", files=(file,), revision="0")


def test_choices_leave_out_what_is_too_large() -> None:
    (choice,) = table_choices([table(1000, "en/a"), table(MAX_BYTES + 1)])
    assert choice[0] == "en/a, train · 1.0 kB, 1 file (parquet)"
    assert chosen_table(choice[1]) == ("en/a", "train")


@pytest.mark.parametrize(
    "value", [None, "", "train", "[1, 2]", '["a"]', "{}", "[" * 100_000], ids=range(7)
)
def test_what_is_no_choice_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="No table is chosen"):
        chosen_table(value)
