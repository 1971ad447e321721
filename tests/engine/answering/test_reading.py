from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.answering.opening import open_reading
from engine.answering.packed_reading import PackedReading
from engine.answering.padded_reading import PaddedReading
from engine.answering.reading import Ids, Reading, check_room, evaluating, share
from engine.answering.slots import row_groups
from engine.language_model import LanguageModel
from templates.errors import RunError
from tests.engine.answering.families import sliding_model
from tests.engine.tiny import CONTEXT, tiny_model

Way = Callable[[LanguageModel, Ids], Reading]


def packed(model: LanguageModel, context: Ids) -> Reading:
    return PackedReading(model, context, 6, 160)


@pytest.fixture(params=[packed, PaddedReading], ids=["packed", "padded"])
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


def test_what_prompts_share_moves_into_the_context() -> None:
    assert share([1], [[2, 3, 4], [2, 3]]) == ([1, 2], [[3, 4], [3]])
    assert share([1, 2], [[], [3]]) == ([1], [[2], [2, 3]])
    assert share([], [[4, 5]]) == ([4], [[5]])


def test_labels_beside_each_other_leave_the_rows_alone(tmp_path: Path, way: Way) -> None:
    model = tiny_model(tmp_path, "gpt2")
    with evaluating(model):
        reading = way(model, [5, 6, 7])
        first = reading.add([[8, 9], [9]])
        ahead = reading.look_ahead([[3, 4], [5], [6, 7, 8]])
        assert torch.equal(reading.look_ahead([[3, 4], [5], [6, 7, 8]]), ahead)
        after = reading.step([3, 3])
        torch.testing.assert_close(after, ahead[:, 0], atol=1e-4, rtol=1e-4)
        again = way(model, [5, 6, 7])
        assert torch.equal(again.add([[8, 9], [9]]), first)


def test_rows_that_leave_do_not_change_those_that_stay(tmp_path: Path, way: Way) -> None:
    model = tiny_model(tmp_path, "llama")
    with evaluating(model):
        batch = way(model, [5])
        batch.add([[6, 7], [7], [9, 9, 9]])
        batch.select([2, 1])
        alone = way(model, [5])
        alone.add([[7]])
        torch.testing.assert_close(batch.step([8, 8])[1:], alone.step([8]), atol=1e-4, rtol=1e-4)


def test_rows_may_be_copied_and_change_places(tmp_path: Path, way: Way) -> None:
    model = tiny_model(tmp_path, "qwen3")
    with evaluating(model):
        batch = way(model, [5])
        batch.add([[6, 7], [7]])
        batch.select([1, 0, 1, 0])
        logits = batch.step([8, 8, 8, 9])
        torch.testing.assert_close(logits[0], logits[2])
        alone = way(model, [5])
        alone.add([[6, 7]])
        alone.select([0, 0])
        ours = logits[[1, 3]]
        torch.testing.assert_close(ours, alone.step([8, 9]), atol=1e-4, rtol=1e-4)


def test_a_row_that_comes_later_changes_nobody(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    with evaluating(model):
        batch, alone = packed(model, [5]), packed(model, [5])
        batch.add([[6, 7]])
        batch.step([8])
        batch.add([[9] * 20])
        alone.add([[9] * 20])
        torch.testing.assert_close(batch.step([3, 4])[1:], alone.step([4]), atol=1e-4, rtol=1e-4)


def test_a_long_context_is_kept_once(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "qwen3")  # two heads to a key
    context = [5 + number % 90 for number in range(70)]
    with evaluating(model):
        shared, whole = packed(model, context), packed(model, [])
        assert shared._memory.shared and not shared._memory.start
        ours = shared.add([[6, 7], [7] * 70])  # as many as the context has
        theirs = whole.add([[*context, 6, 7], context + [7] * 70])
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        steps = shared.step([3, 4]), whole.step([3, 4])
        torch.testing.assert_close(*steps, atol=1e-4, rtol=1e-4)


def test_passes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(tmp_path, "llama")
    prompts = [[6, 7, 8], [7, 8], [9]]
    with evaluating(model):
        at_once = packed(model, [5]).add(prompts)
        monkeypatch.setattr("engine.answering.packed_reading._MOST_TOKENS_IN_A_PASS", 2)
        torch.testing.assert_close(packed(model, [5]).add(prompts), at_once, atol=1e-4, rtol=1e-4)


def test_the_attention_of_the_model_is_put_back(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    before = model.model.config._attn_implementation
    with evaluating(model):
        reading = open_reading(model, [5], 2, 10)
        assert isinstance(reading, PackedReading)
        reading.add([[6]])
        assert model.model.config._attn_implementation == before


def test_a_sliding_window_is_read_packed() -> None:
    model = sliding_model()
    with evaluating(model):
        assert isinstance(open_reading(model, [5], 2, 10), PackedReading)


def test_room_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    check_room(model, [1] * 10, [[1] * 10], CONTEXT - 20)
    with pytest.raises(RunError, match="leaves no room"):
        check_room(model, [1] * 10, [[1] * 10], CONTEXT - 19)


@pytest.mark.parametrize("queries", [(1,) * 6, (250, 240, 90, 30, 4, 2), (4, 250, 4, 240, 2, 90)])
def test_rows_that_are_attended_together_are_alike(queries: tuple[int, ...]) -> None:
    ends = [250, 240, 90, 30, 4, 2]
    groups = row_groups(queries, ends)
    assert 1 < len(groups) < len(queries)
    assert [row for group in groups for row in range(len(ends))[group.rows]] == list(range(6))
    line = range(sum(queries))
    assert [token for group in groups for token in line[group.tokens]] == list(line)
    for group in groups:
        assert group.num_queries == max(queries[group.rows])
        assert group.end == max(ends[group.rows])


def test_rows_of_one_length_are_attended_in_one_call() -> None:
    assert len(row_groups([1] * 64, [300] * 64)) == 1
