"""Rows are the same for everybody, and the useful work in them is counted by hand."""

import statistics
from dataclasses import replace

import torch
from transformers.pytorch_utils import Conv1D

from benchmarks.account import (
    ATTENTION,
    ELEMENTWISE,
    HEAD,
    LINEAR,
    Account,
    part_of,
    product_flops,
)
from benchmarks.workload import MODELS, NUM_ROWS, Case, Row, Shape, draw_rows, useful_flops


def test_rows_are_drawn_alike_and_as_long_as_said() -> None:
    case = Case("train", "main", "llama-15m", "lora")
    rows = list(case.training_rows())
    assert rows == list(case.training_rows()) and len(rows) == NUM_ROWS
    assert abs(statistics.median(row.num_prompt for row in rows) - 60) < 3
    assert abs(statistics.median(len(row.ids) - row.num_prompt for row in rows) - 20) < 2
    assert max(len(row.ids) for row in rows) <= 256
    assert not set(case.held_out_rows()) & set(rows)


def test_rows_of_a_length_and_data_of_a_size() -> None:
    case = Case("train", "length", "tiny", "lora", row_tokens=128)
    assert {(len(row.ids), row.num_prompt) for row in case.training_rows()} == {(128, 96)}
    data = replace(case, row_tokens=0, data_tokens=5000)
    num_tokens = sum(len(row.ids) for row in data.training_rows())
    assert 5000 <= num_tokens < 5000 + 256


def test_useful_work_counts_products_attention_and_the_head_where_it_is_read() -> None:
    shape = Shape("llama", 4, 8, 2, 2, vocabulary_size=10)
    weights = 2 * (4 * 4 * 4 + 3 * 4 * 8)
    assert shape.linear_weights == weights
    row = Row((1, 2, 3, 4, 5), 3)
    attention = 6 * 2 * 4 * 25
    assert useful_flops(shape, [row], learns_all=False) == 4 * weights * 5 + 4 * 40 * 2 + attention
    whole = 6 * weights * 5 + 6 * 40 * 2 + attention
    assert useful_flops(shape, [row], learns_all=True) == whole


def test_a_soft_prompt_is_work_but_no_token_of_text() -> None:
    plain = Case("train", "main", "tiny", "lora")
    prompted = replace(plain, method="prompt_tuning")
    assert prompted.useful_flops_per_token() > plain.useful_flops_per_token()


def test_the_count_of_parameters_is_that_of_the_names() -> None:
    sizes = {
        name: shape.linear_weights + shape.vocabulary_size * shape.width * (1 if shape.tied else 2)
        for name, shape in MODELS.items()
    }
    assert 14e6 < sizes["llama-15m"] < 16e6
    assert 57e6 < sizes["llama-60m"] < 61e6
    assert 123e6 < sizes["gpt2-124m"] < 125e6


def test_operators_fall_into_parts() -> None:
    assert part_of("aten::mm", [[8, 4], [4, 100]], 100) == HEAD
    assert part_of("aten::addmm", [[6], [8, 4], [4, 6]], 100) == LINEAR
    assert part_of("aten::bmm", [[2, 8, 4], [2, 4, 8]], 100) == ATTENTION
    assert part_of("aten::mul", [[8, 4], []], 100) == ELEMENTWISE
    assert product_flops("aten::mm", [[8, 4], [4, 100]]) == 2 * 8 * 4 * 100
    assert product_flops("aten::addmm", [[6], [8, 4], [4, 6], [], []]) == 2 * 8 * 4 * 6
    assert product_flops("aten::bmm", [[2, 8, 4], [2, 4, 8]]) == 2 * 2 * 8 * 4 * 8
    assert product_flops("aten::mul", [[8, 4], []]) == 0


def test_draws_differ_by_seed() -> None:
    assert draw_rows(2, 1000, 0) != draw_rows(2, 1000, 1)


def test_a_layer_that_spreads_its_bias_counts_one_product() -> None:
    layer, rows = Conv1D(48, 32), torch.randn(16, 32)
    account = Account(vocabulary_size=1000)
    account.start()
    layer(rows).sum().backward()
    linear = account.stop()["parts"][LINEAR]
    assert linear["flops"] == 2 * (2 * 16 * 32 * 48)  # forward, and the gradient of the weight
