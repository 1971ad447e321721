"""The protocol, spoken by hand to a real child."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.planning.advice import MethodRow, Remedy
from engine.planning.estimate import CostEstimate
from engine.planning.shown import LengthReport, PreviewItem
from templates.memory import memory_bytes
from tests.engine.tried import trained_run

ROOT = Path(__file__).parents[2]
NOISY = """
import os, sys
import engine.service as service

def noisy():
    print("a library prints")
    os.write(1, b'{"id": "1", "result": "forged"}\\n')
    os.system("echo a program prints")
    return {"input": sys.stdin.read(), "methods": 3}

def greedy(request):
    raise MemoryError

def broken(request):
    raise ZeroDivisionError("a mistake")

service.describe_methods, service.estimate, service.show_preview = noisy, greedy, broken
service.main()
"""


class Child:
    """A child whose lines are written and read one by one."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def say(self, line: bytes) -> None:
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        request = {"id": "1", "operation": operation, "arguments": arguments}
        self.say(json.dumps(request, default=os.fspath).encode())
        return self.hear()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    started = Child("-m", "engine.service")
    yield started
    started.end()


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_run(tmp_path_factory.mktemp("writer"), "generation")


def test_methods_are_described_for_forms(child: Child) -> None:
    found = child.ask("methods")["result"]
    lora = found["methods"]["lora"]
    assert lora["title"] == "LoRA" and lora["precisions"] == ["fp32", "bf16"]
    assert lora["options"]["properties"]["rank"]["minimum"] == 1
    assert lora["schedule"]["learning_rate"] == 2e-4
    assert found["schedule"]["properties"]["epochs"]["title"] == "Epochs"
    assert found["usual_limits"]["too_long"] in found["limits"]["properties"]["too_long"]["enum"]


def test_a_plan_is_made_and_estimated(child: Child, writer: dict[str, Any]) -> None:
    base = writer["run_folder"].parent / "base"
    found = child.ask(
        "estimate", dataset_folder=writer["dataset_folder"], base=base, options={"rank": 2},
        schedule={"epochs": "2"}, seed=3,
    )["result"]  # fmt: skip
    assert found["plan"]["method"]["options"]["rank"] == 2 and found["plan"]["seed"] == 3
    assert found["plan"]["schedule"]["epochs"] == 2
    assert CostEstimate.model_validate(found["estimate"]).peak_memory_bytes > 1 << 20
    wrong = child.ask("estimate", dataset_folder=writer["dataset_folder"], options={"rank": 0})
    assert wrong["error"]["kind"] == "PlanError" and "rank" in wrong["error"]["what"]


def test_methods_are_compared_and_what_does_not_fit_has_a_remedy(
    child: Child, writer: dict[str, Any]
) -> None:
    shared = {
        "dataset_folder": writer["dataset_folder"], "base": writer["run_folder"].parent / "base",
    }  # fmt: skip
    rows = child.ask("compare_methods", **shared, schedule={"epochs": 1})["result"]["rows"]
    assert MethodRow.model_validate(rows[0]).recommended_because
    wrong = child.ask("compare_methods", **shared, precision="fp7")
    assert wrong["error"]["kind"] == "RunError" and "precision" in wrong["error"]["what"]
    longest = child.ask("preview", **shared)["result"]["lengths"]["max_tokens"]
    limits = {"max_length_tokens": longest - 1, "too_long": "stop"}
    found = child.ask("estimate", **shared, limits=limits)["result"]
    remedy = Remedy.model_validate(found["remedies"][0])
    again = child.ask("estimate", **{**shared, **remedy.changes})["result"]
    assert found["estimate"]["blockers"] and not again["estimate"]["blockers"]
    assert again["remedies"] == []


def test_a_preview_is_read_as_in_training(child: Child, writer: dict[str, Any]) -> None:
    base = writer["run_folder"].parent / "base"
    found = child.ask("preview", dataset_folder=writer["dataset_folder"], base=base, count=2)
    items = [PreviewItem.model_validate(item) for item in found["result"]["items"]]
    assert len(items) == 2
    assert items[0].supervised_text == " héllo billing, 好的 END<|endoftext|>"
    assert LengthReport.model_validate(found["result"]["lengths"]).count == 8


def test_a_try_streams_both_arms_and_can_be_cancelled(child: Child, writer: dict[str, Any]) -> None:
    said = {"base": "", "tuned": ""}
    answer = child.ask("try", **writer, fields={"input": "my parcel"}, max_new_tokens=30)
    while "part" in answer:
        said[answer["part"]["arm"]] += answer["part"]["text"]
        answer = child.hear()
    assert said == {arm: found["answer"] for arm, found in answer["result"].items()}
    assert child.ask("unload")["result"] == {}
    answer = child.ask("try", **writer, fields={"input": "my parcel"}, max_new_tokens=80)
    child.say(b'{"id": "1", "operation": "cancel"}')
    num_parts = 0
    while "part" in answer:
        num_parts, answer = num_parts + 1, child.hear()
    assert answer == {"id": "1", "result": None} and num_parts < 80
    again = child.ask("ping")  # the id was cancelled, not the next request that has it
    assert again["result"]["pid"] == child.process.pid


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"garbage", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"17", "not a list of settings"),
        (b'{"id": 1, "operation": "ping"}', "id: input should be a valid string"),
        (b'{"id": "1", "operation": "fly"}', "no operation 'fly'"),
        (b'{"id": "1", "operation": "ping", "arguments": {"a": 1}}', "no setting called 'a'"),
        (b'{"id": "1", "operation": "preview"}', "dataset_folder is missing"),
    ],
)
def test_a_wrong_request_is_an_error_answer(child: Child, line: bytes, words: str) -> None:
    child.say(line)
    error = child.hear()["error"]
    assert words in error["what"] and error["kind"] == "RunError" and error["fix"]
    assert child.ask("ping")["result"]["pid"] == child.process.pid


def test_a_missing_dataset_keeps_its_kind(child: Child, tmp_path: Path) -> None:
    assert child.ask("preview", dataset_folder=tmp_path)["error"]["kind"] == "DataError"


def test_the_memory_limit_is_set(child: Child) -> None:
    child.ask("ping")
    limit, _ = resource.prlimit(child.process.pid, resource.RLIMIT_DATA)
    assert limit == int(0.8 * memory_bytes()[1])


def test_what_libraries_print_read_and_raise_does_not_touch_the_protocol() -> None:
    child = Child("-c", NOISY)
    assert child.ask("methods") == {"id": "1", "result": {"input": "", "methods": 3}}
    error = child.ask("estimate", dataset_folder="somewhere")["error"]
    assert error["kind"] == "RunError" and "has used up its" in error["what"]
    assert error["fix"] == "Choose a smaller base or shorter texts, or close other programs"
    error = child.ask("preview", dataset_folder="somewhere")["error"]
    assert error["kind"] == "StudioError" and error["where"] == "ZeroDivisionError"
    assert "did not foresee" in error["what"] and "engine's log" in error["fix"]
    started = time.monotonic()
    child.end()
    assert time.monotonic() - started < 2
