"""Every method that the ecosystem knows, on every kind of model: into the real `peft` and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.language_model import LanguageModel
from engine.methods import all_methods
from templates.errors import ModelError, PlanError
from tests.engine.architectures import KINDS
from tests.engine.methods.peft_twin import (
    IDS,
    loaded_from_peft,
    logits,
    opened_by_peft,
    spread_out,
)
from tests.engine.methods.test_contract import SMALL
from tests.engine.methods.test_model_kinds import REFUSED

NOT_IN_PEFT = {("loha", "gpt2"), ("lokr", "gpt2")}  # peft 0.21.2 knows no Conv1D there
_SELDOM = 7  # of a method's kinds every seventh is met at each run


@torch.no_grad()
def behind_its_prompt(tuned: LanguageModel) -> torch.Tensor:
    """Logits at IDS, behind the soft prompt where there is one."""
    virtual = torch.tensor([tuned.virtual_token_ids], dtype=torch.long).expand(len(IDS), -1)
    given = torch.cat([virtual, IDS], 1)
    return tuned.model(given).logits[:, -IDS.shape[1] :].float()


def _pairs() -> Iterator[object]:
    with_type = [s.name for s in all_methods().values() if s.export and "fp32" in s.precisions]
    for shift, method in enumerate(with_type):
        for place, kind in enumerate(KINDS):
            if (method, kind) not in REFUSED:
                marks = pytest.mark.matrix if (place + shift) % _SELDOM else ()
                yield pytest.param(method, kind, id=f"{method}-{kind}", marks=marks)


# Of layers and biases that it nonetheless serves.
@pytest.mark.filterwarnings(
    "ignore:Unsupported layer type",
    "ignore:`lora_bias=True` was passed",
    "ignore:Adapter 'default'. .* have invalid shape",
)
@pytest.mark.parametrize(("method", "kind"), list(_pairs()))
def test_what_we_publish_is_the_same_in_peft_and_comes_back(
    tmp_path: Path, method: str, kind: str
) -> None:
    options = SMALL.get(method, {})
    tuned = spread_out(tmp_path, method, kind, spread=0.05, **options)
    if (method, kind) in NOT_IN_PEFT:
        with pytest.raises(PlanError, match="Publish it as merged"):
            opened_by_peft(tmp_path, tuned, method, **options)
        return
    expected = behind_its_prompt(tuned)
    theirs = opened_by_peft(tmp_path, tuned, method, **options)
    found = logits(theirs)[:, -IDS.shape[1] :]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    has_biases = any(name.endswith("base_layer.bias") for name, _ in theirs.named_parameters())
    if has_biases and theirs.active_peft_config.to_dict().get("bias") == "all":
        # It then saves the base's own biases, too, which may be others by then.
        with pytest.raises(ModelError, match=r"none of a LoRA layer \(.*base_layer.bias"):
            loaded_from_peft(tmp_path, theirs)
        return
    back = behind_its_prompt(loaded_from_peft(tmp_path, theirs))
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-4)
