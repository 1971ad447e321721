"""The parts run through the product's own code."""

import json
from pathlib import Path

import numpy as np
import pytest

from starter.measuring import in_context, tuning
from starter.measuring.in_context import in_context_values, measure_in_context
from starter.measuring.prose import prose_values
from starter.measuring.speed import decode_values
from starter.measuring.summary import summarise
from starter.measuring.texts import OPENINGS, measure_texts
from starter.measuring.tuning import measure_tuning
from starter.tasks import family_task
from tests.starter.measuring.little_tables import bench_on


def test_in_context_and_tuning_run_through_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (in_context, tuning):
        monkeypatch.setattr(part, "REAL_TASKS", ("sms_spam",))
    bench = bench_on(tmp_path)
    measure_in_context(bench)
    measure_tuning(bench)
    measured = summarise(bench)
    assert set(measured["in_context"]) == {"sms_spam", "reviews"} == set(measured["tuning"])
    entry = measured["in_context"]["reviews"]
    assert list(entry["counts"]) == ["0", "1", "4", "8", "16"] and list(entry["control"]) == ["8"]
    for count in entry["counts"].values():
        low, high = count["interval"]
        assert low <= count["mean"] <= high and count["chance"] == 0.5
        assert count["num_draws_that_fit"] == len(count["draws"]) == 2
    tuned = measured["tuning"]["reviews"]["40"]
    assert (tuned["num_train"], tuned["num_validation"], tuned["precision"]) == (20, 20, "fp32")
    # The method's rate for width 4,096, scaled to this model's.
    width = bench.language_model.model.config.hidden_size
    assert tuned["learning_rate"] == pytest.approx(2e-4 * 4096 / width, rel=0.05)
    assert tuned["classical"]["balanced_accuracy"] > 0.8
    low, high = tuned["tuned"]["balanced_interval"]
    assert 0 <= low <= tuned["tuned"]["balanced_accuracy"] <= high <= 1
    written = json.loads((bench.out / "measured.json").read_text(encoding="utf-8"))
    assert written == measured
    before = (bench.out / "in_context.jsonl").read_bytes()
    measure_in_context(bench)
    assert (bench.out / "in_context.jsonl").read_bytes() == before


def test_a_prompt_that_is_too_long_is_said_not_to_fit(tmp_path: Path) -> None:
    bench = bench_on(tmp_path)
    long = [(f"{'very ' * 400}long {number}", "ab"[number % 2]) for number in range(40)]
    task = family_task(
        "long", lambda generator, count: long, seed="", num_train=16, num_test=9, by_turns=True
    )
    values = in_context_values(bench.language_model, task, 8, draw=0)
    assert values["fits"] is False and values["balanced_accuracy"] is None


def test_shuffled_labels_are_the_same_labels(tmp_path: Path) -> None:
    bench = bench_on(tmp_path)
    task = bench.real_task("cr")
    plain, mixed = (
        in_context_values(bench.language_model, task, 8, draw=1, shuffled=shuffled)
        for shuffled in (False, True)
    )
    assert plain["context_tokens"] == mixed["context_tokens"]  # the same texts and words


def test_bits_per_byte_add_up_over_windows(tmp_path: Path) -> None:
    language_model = bench_on(tmp_path).language_model
    documents = ["Once upon a time there was a little dog. " * 160, "Süße Äpfel.\n"]
    values = prose_values(language_model, documents)
    assert values["tokens"] > language_model.context_tokens  # more than one window
    assert values["bytes"] == len(documents[0].encode()) + 2 + len(documents[1].encode()) + 1
    nats = values["nats_per_token"] * values["tokens"]
    assert values["bits_per_byte"] == pytest.approx(nats / np.log(2) / values["bytes"])
    assert 0 < values["bits_per_byte"] < 2  # repetitive, and the model has read stories


def test_texts_and_decoding_speed(tmp_path: Path) -> None:
    bench = bench_on(tmp_path)
    measure_texts(bench)
    cells = bench.cells("texts").values
    assert [cell["opening"] for cell in cells.values()] == list(OPENINGS)
    assert all(cell["text"] for cell in cells.values())
    speed = decode_values(bench, 2)
    assert 2 <= speed["tokens"] <= 2 * 16 and speed["tokens_per_second"] > 0
