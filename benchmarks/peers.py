"""The others as contestants, in an environment of their own: `peft`, `trl`, `transformers`.

    python -m benchmarks.peers NAME CASE

Of the product only `prepare_process` is used, and only where a case gives the peers our settings.
"""

import logging
import os
import warnings
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
warnings.filterwarnings("ignore")

import torch
from datasets import Dataset
from datasets import disable_progress_bars as disable_dataset_bars
from peft import (
    LoraConfig,
    PeftConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    get_peft_model,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from benchmarks.held_out import held_out_loss
from benchmarks.records import MODELS_FOLDER
from benchmarks.seat import Pace, Seat, case_from_arguments, take_turns
from benchmarks.workload import (
    ALPHA,
    LABELS,
    LEARNING_RATES,
    NUM_NEW_TOKENS,
    NUM_VIRTUAL_TOKENS,
    PAD_ID,
    RANK,
    Case,
)
from engine.planning.hardware import prepare_process

_IGNORED = -100
_MANY_STEPS = 1_000_000
_PACKED_TOKENS, _PACKED_ROWS = 256, 3  # together about as many tokens as eight rows have
_SCORED_AT_ONCE = 8


def computes_in_bf16(case: Case) -> bool:
    """Our 4-bit weights are computed with in bf16, so the peers' are too."""
    return case.settings == "ours" and case.precision != "fp32"


def open_model(case: Case) -> Any:
    """Load the case's model; frozen weights in our type where the case says so."""
    in_bf16 = computes_in_bf16(case)
    holds_bf16 = in_bf16 and case.method != "full"
    dtype = torch.bfloat16 if holds_bf16 else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if case.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(MODELS_FOLDER / case.model, **options)


def adapter(case: Case) -> PeftConfig | None:
    """The method as `peft` knows it; None for full fine-tuning."""
    if case.method == "full":
        return None
    if case.method == "prompt_tuning":
        return PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=NUM_VIRTUAL_TOKENS,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=list(case.shape.lora_targets),
        fan_in_fan_out=case.shape.family == "gpt2",
    )


def arguments(case: Case, folder: str) -> dict[str, Any]:
    """What every trainer is told: no reports, no files, a constant learning rate."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": case.batch_size,
        "max_steps": _MANY_STEPS,
        "learning_rate": LEARNING_RATES[case.method],
        "lr_scheduler_type": "constant",
        "bf16": computes_in_bf16(case),
        "gradient_checkpointing": False,
        "use_cpu": True,
        "seed": 0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def new_peft_trainer(case: Case, folder: str) -> Trainer:
    """`peft` with the trainer of `transformers`, as its tutorials put them together."""
    model, config = open_model(case), adapter(case)
    if config:
        model = get_peft_model(model, config)
    rows = list(case.training_rows())
    labels = [[_IGNORED] * row.num_prompt + list(row.ids[row.num_prompt :]) for row in rows]
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments(case, folder)),
        train_dataset=Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": labels}),
        data_collator=DataCollatorForSeq2Seq(_tokenizer(case), label_pad_token_id=_IGNORED),
    )


def new_trl_trainer(case: Case, folder: str, how: str) -> Trainer:
    """The fine-tuning trainer of `trl`, with one of its ways to waste less on padding."""
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415 - only where it is measured

    told = arguments(case, folder) | {"completion_only_loss": True, "max_length": None}
    if how == "packed":
        told |= {
            "packing": True,
            "max_length": _PACKED_TOKENS,
            "per_device_train_batch_size": _PACKED_ROWS,
        }
    if how == "padding-free":
        told |= {"padding_free": True}
    rows = list(case.training_rows())
    masks = [[int(place >= row.num_prompt) for place in range(len(row.ids))] for row in rows]
    columns = {"input_ids": [row.ids for row in rows], "completion_mask": masks}
    return SFTTrainer(
        model=open_model(case),
        args=SFTConfig(**told),
        train_dataset=Dataset.from_dict(columns),
        processing_class=_tokenizer(case),
        peft_config=adapter(case),
    )


class CountingCollator:
    """Another collator, and the real tokens of each batch it makes."""

    def __init__(self, collator: Callable[[Any], Any]) -> None:
        """Count nothing yet."""
        self._collator = collator
        self.num_tokens: list[int] = []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Make a batch; padding is not counted."""
        batch = self._collator(rows)
        mask = batch.get("attention_mask")
        self.num_tokens.append(int(batch["input_ids"].numel() if mask is None else mask.sum()))
        return batch


class TakesTurns(TrainerCallback):
    """Waits between two steps of a trainer; the next batch is made inside the turn."""

    def __init__(self, pace: Pace, collator: CountingCollator, facts: dict[str, Any]) -> None:
        """Wait for the trainer to begin."""
        self._pace, self._collator, self._facts = pace, collator, facts
        self._step = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Everything is in memory."""
        self._pace.begin(**self._facts)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Batches are made ahead, so the tokens of this step are looked up by its number."""
        self._step += 1
        self._pace.after_step(self._collator.num_tokens[self._step - 1])


def compete_in_training(name: str, case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """Train turn by turn, until there are no more orders."""
    with TemporaryDirectory() as folder:
        library, _, how = name.partition(" ")
        is_trl = library == "trl"
        trainer = new_trl_trainer(case, folder, how) if is_trl else new_peft_trainer(case, folder)
        collator = CountingCollator(trainer.data_collator)
        trainer.data_collator = collator
        rows = case.held_out_rows()
        pace = Pace(seat, case, lambda: held_out_loss(trainer.model, rows))
        trainer.add_callback(TakesTurns(pace, collator, facts))
        trainer.train()


def compete_in_generating(name: str, case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """`model.generate`, prompts of like length together, so many at once as the name says."""
    model, tokenizer, size = open_model(case).eval(), _tokenizer(case), int(name.split()[-1])
    prompts = case.prompts()
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))

    def work() -> dict[str, Any]:
        texts = [""] * len(prompts)
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            ids, mask = _padded([prompts[number] for number in numbers])
            found = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NUM_NEW_TOKENS, do_sample=False
            )
            for number, row in zip(numbers, found[:, ids.shape[1] :].tolist(), strict=True):
                texts[number] = tokenizer.decode(row, skip_special_tokens=True)
        return {"tokens": sum(len(text.split()) for text in texts), "answers": texts}

    take_turns(seat, work, **facts)


def compete_in_scoring(name: str, case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """A plain loop: shots and prompt are read together for every prompt, eight at once."""
    model, shots = open_model(case).eval(), case.shots()
    texts = [shots + prompt for prompt in case.prompts()]

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        scores = []
        for start in range(0, len(texts), _SCORED_AT_ONCE):
            ids, mask = _padded(texts[start : start + _SCORED_AT_ONCE])
            # Left padding moves positions; the generation loop of the library shifts them too.
            kept = {"logits_to_keep": 1} if name == "plain loop, last logits" else {}
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                use_cache=False,
                **kept,
            ).logits[:, -1]
            scores += logits.float().log_softmax(dim=-1)[:, list(LABELS)].tolist()
        return {"inputs": len(texts), "scores": scores}

    take_turns(seat, work, **facts)


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the left, so that every row ends in the last column."""
    width = max(len(row) for row in rows)
    ids = [[PAD_ID] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _tokenizer(case: Case) -> Any:
    return AutoTokenizer.from_pretrained(MODELS_FOLDER / case.model)


def main() -> None:
    """Sit down and take part."""
    name, case = case_from_arguments()
    seat = Seat()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    disable_dataset_bars()
    facts: dict[str, Any] = {}
    if case.settings == "ours":
        settings = prepare_process()
        facts = {"keeps_memory": settings.keeps_memory}
    facts |= {
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "bf16": computes_in_bf16(case),
    }
    compete = {
        "train": compete_in_training,
        "generate": compete_in_generating,
        "score": compete_in_scoring,
    }[case.task]
    compete(name, case, seat, facts)


if __name__ == "__main__":
    main()
