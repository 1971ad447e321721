"""Make the starter model, from raw text to a model folder: `make starter`.

Tokenizer, empty model, and then one run of the studio's own trainer for each stage of
`recipe.yaml`: full fine-tuning of the folder that the stage before left. What is done is not done
again, and a run that was ended goes on from its newest checkpoint.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

# Read when torch loads: as in studio/settings.py.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from engine.base_model import load_base, locate_base
from engine.events import Event, Finished, Stamped, Stepped, to_json
from engine.method import attach_method, count_parameters
from engine.methods import full
from engine.plan import Limits
from engine.planning.hardware import measure_hardware, prepare_process
from engine.trainer import Training, train
from starter.card import LOG
from starter.corpus import (
    END_OF_TEXT,
    Corpus,
    CorpusError,
    load_corpus,
    read_storybook_authors,
)
from starter.first_weights import circuit_weights, new_model
from starter.muon import muon
from starter.recipe import RECIPE, Recipe, Stage, read_recipe
from starter.rows import PackedRows, mixed_documents, write_rows
from templates.render import DEMONSTRATION_BREAK
from templates.template import DEFAULT_SEPARATOR

# One token each, so that a label stands right behind its text: the studio's own marks.
_WHOLE = (DEFAULT_SEPARATOR, DEMONSTRATION_BREAK)
_VALIDATION_ROWS = 48
_SHARD_BYTES = "15MB"  # a file that any Git host takes
_STEPS_PER_LOG_LINE = 10


def make_tokenizer(folder: Path, recipe: Recipe, corpus: Corpus) -> None:
    """Learn a byte-level BPE, digits apart, from a sample of the longest stage's mix.

    Args:
        folder: where to save it.
        recipe: how many entries, how much text.
        corpus: the training part.
    """
    stage = max(recipe.stages, key=lambda stage: stage.num_tokens)
    documents = mixed_documents(
        corpus, stage.mix, most_episode_chars=stage.most_episode_chars, seed=f"{recipe.seed}/bpe"
    )
    sample: list[str] = []
    num_chars = 0
    while num_chars < recipe.tokenizer.sample_chars:
        texts = [segment.text for segment in next(documents)]
        sample += texts
        num_chars += sum(map(len, texts))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.tokenizer.num_entries - len(_WHOLE),
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in _WHOLE])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=recipe.model.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def run_stage(
    recipe: Recipe, stage: Stage, base: Path, folder: Path, *, pause_at_step: int = 0
) -> Iterator[Event]:
    """Train one stage, or go on with it; at its end the result is saved in `folder/model`.

    Args:
        recipe: seed and optimizer.
        stage: rows and schedule.
        base: the model folder to start from, in fp32.
        folder: of the stage; holds rows and checkpoints.
        pause_at_step: stop there, to go on later; 0: do not.

    Yields:
        The trainer's events.
    """
    read = load_base(locate_base(str(base)), "fp32")
    # The weights stay fp32; products may be in bf16, which is what the trainer does on a bf16 base.
    tuned = attach_method(
        replace(read, precision=recipe.precision), full.SPEC, full.Options(), seed=recipe.seed
    )
    training = Training(
        language_model=tuned,
        train=PackedRows(folder / "rows.npy"),
        validation=PackedRows(folder / "validation.npy"),
        schedule=stage.schedule,
        limits=Limits(),
        seed=recipe.seed,
        checkpoints=folder / "checkpoints",
        new_optimizer=partial(
            muon,
            adamw_rate_ratio=recipe.muon.adamw_rate_ratio,
            circuit=circuit_weights(tuned.model),
            circuit_rate_ratio=recipe.muon.circuit_rate_ratio,
            product_dtype=torch.float32 if recipe.precision == "fp32" else torch.bfloat16,
        ),
    )
    with _stopping() as should_stop:
        for event in train(training, should_stop=should_stop, pause_at_step=pause_at_step):
            yield event
    if isinstance(event, Finished):
        _save(tuned.model, tuned.tokenizer, folder / "model")


def make_starter(recipe: Recipe, data: Path, work: Path, *, pause_at_step: int = 0) -> Path | None:
    """Do all that is not done yet.

    Args:
        recipe: what to make.
        data: the folder with the texts.
        work: where everything is kept while it is made.
        pause_at_step: end the stage that is trained now at this step; 0: do not.

    Returns:
        The folder of the last stage's model in fp32; None where training was ended before.

    Raises:
        CorpusError: the data is not there, or `work` belongs to another recipe.
    """
    _claim(work, recipe)
    folders = [work / stage.name for stage in recipe.stages]
    if not all((folder / "rows.npy").exists() for folder in folders):
        _prepare(recipe, data, work)
    base = work / "untrained"
    for stage, folder in zip(recipe.stages, folders, strict=True):
        if not (folder / "model").exists():
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                for event in run_stage(recipe, stage, base, folder, pause_at_step=pause_at_step):
                    _tell(event, log)
            if not isinstance(event, Finished):
                return None
        base = folder / "model"
    return base


def publish(model_folder: Path, out: Path) -> int:
    """Save the model in bf16, in shards that any Git host takes.

    Args:
        model_folder: in fp32, with its tokenizer.
        out: the folder to write; older weights in it are deleted.

    Returns:
        Its parameters.
    """
    read = load_base(locate_base(str(model_folder)), "bf16")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("model*.safetensors*"):
        old.unlink()
    read.model.save_pretrained(out, max_shard_size=_SHARD_BYTES)
    read.tokenizer.save_pretrained(out)
    return count_parameters(read.model.parameters())


def keep_log(recipe: Recipe, work: Path, data: Path, num_parameters: int, log: Path) -> None:
    """Copy what the card tells of the run: recipe, log of each stage, machine, credits.

    Args:
        recipe: that was followed.
        work: where the model was made.
        data: the texts.
        num_parameters: of the model.
        log: the folder to write.
    """
    log.mkdir(exist_ok=True)
    shutil.copy(work / "recipe.json", log / "recipe.json")
    for stage in recipe.stages:
        shutil.copy(work / stage.name / "log.jsonl", log / f"{stage.name}.jsonl")
    run = {
        "num_parameters": num_parameters,
        "processor": measure_hardware().name,
        "storybook_authors": read_storybook_authors(data),
    }
    content = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    (log / "run.json").write_text(content, encoding="utf-8")


def _claim(work: Path, recipe: Recipe) -> None:
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "recipe.json"
    if not mark.exists():
        mark.write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    elif Recipe.model_validate_json(mark.read_text(encoding="utf-8")) != recipe:
        raise CorpusError(f"{work} holds the work of another recipe: delete it or name another")


def _prepare(recipe: Recipe, data: Path, work: Path) -> None:
    corpus, held_out = load_corpus(data)
    untrained = work / "untrained"
    if not (untrained / "config.json").exists():
        make_tokenizer(untrained, recipe, corpus)
        separator_id = PreTrainedTokenizerFast.from_pretrained(untrained).convert_tokens_to_ids(
            DEFAULT_SEPARATOR
        )
        new_model(
            recipe.model, recipe.tokenizer.num_entries, recipe.seed, separator_id=separator_id
        ).save_pretrained(untrained)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(untrained)
    for stage in recipe.stages:
        folder = work / stage.name
        folder.mkdir(exist_ok=True)
        for name, part, num_rows in (
            ("validation", held_out, _VALIDATION_ROWS),
            ("rows", corpus, stage.num_rows),
        ):
            print(f"{stage.name}: writing {num_rows} {name}", flush=True)
            documents = mixed_documents(
                part,
                stage.mix,
                most_episode_chars=stage.most_episode_chars,
                seed=f"{recipe.seed}/{stage.name}/{name}",
                families=stage.families,
            )
            write_rows(
                folder / f"{name}.npy",
                documents,
                tokenizer,
                row_tokens=stage.row_tokens,
                num_rows=num_rows,
            )


@contextlib.contextmanager
def _stopping() -> Iterator[Any]:
    """Ctrl-C and a polite kill end the run after its step, with a checkpoint."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    temporary = folder.with_suffix(".tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)


def _tell(event: Event, log: TextIO) -> None:
    """Show an event and keep it; of the steps every tenth."""
    if isinstance(event, Stepped) and event.step % _STEPS_PER_LOG_LINE:
        return
    line = to_json(Stamped(event, time.time(), time.monotonic()))
    print(line, file=log, flush=True)
    print(line, flush=True)


def main() -> int:
    """Run all steps and return the exit status."""
    parser = argparse.ArgumentParser(description="Make the starter model.")
    parser.add_argument("--data", type=Path, default=os.environ.get("STUDIO_DATA"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--work", type=Path, default=Path("build/starter"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args()
    if options.data is None:
        parser.error(
            "no training text: set the environment variable STUDIO_DATA (or --data) to a folder "
            "with text/ and tasks/"
        )
    prepare_process()
    recipe, data = read_recipe(options.recipe), Path(options.data)
    try:
        made = make_starter(recipe, data, options.work)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    if made is None:
        print("Ended before its end; the same command goes on from here.", file=sys.stderr)
        return 1
    num_parameters = publish(made, options.out)
    keep_log(recipe, options.work, data, num_parameters, options.log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
