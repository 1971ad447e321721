import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.method import trainable
from engine.methods import get_method
from engine.publishing.adapter_folder import load_adapter
from engine.publishing.publish import FinishedRun, publish
from engine.runs import open_planned_base
from templates.errors import ModelError
from tests.engine.publishing.published import finished_run


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    run = finished_run(tmp_path, "lora")
    publish(run, tmp_path / "out")
    return run


def test_reads_back_every_learned_number(tmp_path: Path, run: FinishedRun) -> None:
    base = open_planned_base(run.plan)
    tuned = load_adapter(tmp_path / "out", base, run.plan, get_method("lora"))
    learned = load_file(run.checkpoints / "step-00000001" / "learned.safetensors")
    own = trainable(tuned.model)
    assert own.keys() == learned.keys()
    assert all(torch.equal(own[name], learned[name]) for name in own)
    assert tuned.encode("a parcel") == [tuned.tokenizer.vocab["a"], *tuned.encode(" parcel")]


def test_an_adapter_that_is_not_this_one(tmp_path: Path, run: FinishedRun) -> None:
    folder, base, spec = tmp_path / "out", open_planned_base(run.plan), get_method("lora")
    method = run.plan.method.model_copy(update={"options": {"rank": 2}})
    other = run.plan.model_copy(update={"method": method})
    with pytest.raises(ModelError, match="belongs to another base, method or options"):
        load_adapter(folder, base, other, spec)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    with pytest.raises(ModelError, match="belongs to another base, method or options"):
        load_adapter(folder, base, run.plan, spec)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="belongs to another base, method or options"):
        load_adapter(folder, base, run.plan, spec)
