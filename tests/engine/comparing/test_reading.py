from pathlib import Path

import pytest
import torch

from engine.comparing.reading import Reading, can_read_side_by_side, check_room, evaluating, share
from templates.errors import RunError
from tests.engine.comparing.test_decoding import sliding_model
from tests.engine.tiny import CONTEXT, tiny_model


def test_what_prompts_share_moves_into_the_context():
    assert share([1], [[2, 3, 4], [2, 3]]) == ([1, 2], [[3, 4], [3]])
    assert share([1, 2], [[], [3]]) == ([1], [[2], [2, 3]])
    assert share([], [[4, 5]]) == ([4], [[5]])


def test_side_by_side_only_where_every_layer_sees_everything(tmp_path: Path):
    assert can_read_side_by_side(tiny_model(tmp_path, "llama"))
    assert not can_read_side_by_side(sliding_model())


def test_a_branch_leaves_its_beginning_alone(tmp_path: Path):
    model = tiny_model(tmp_path, "gpt2")
    with evaluating(model):
        opened = Reading(model, [5, 6, 7])
        first = opened.branch(2).read_prompts([[8, 9], [9]])
        assert opened.mask.shape == (1, 3)
        assert torch.equal(opened.branch(2).read_prompts([[8, 9], [9]]), first)


def test_rows_that_leave_do_not_change_those_that_stay(tmp_path: Path):
    model = tiny_model(tmp_path, "llama")
    ids = torch.tensor([[8]])
    with evaluating(model):
        batch = Reading(model, [5]).branch(3)
        batch.read_prompts([[6, 7], [7], [9, 9, 9]])
        batch.keep_rows([1])
        alone = Reading(model, [5]).branch(1)
        alone.read_prompts([[7]])
        ours = batch.read(ids, torch.ones_like(ids), keep=1)
        theirs = alone.read(ids, torch.ones_like(ids), keep=1)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_room_is_checked_before_anything_is_read(tmp_path: Path):
    model = tiny_model(tmp_path, "llama")
    check_room(model, [1] * 10, [[1] * 10], CONTEXT - 20)
    with pytest.raises(RunError, match="leaves no room"):
        check_room(model, [1] * 10, [[1] * 10], CONTEXT - 19)
