"""From a plan to something to train, and from a finished run to a model to use."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.adapter_import import ImportedAdapter
from engine.base_model import BaseFolder, load_base, load_skeleton, locate_base
from engine.batches import Batch, collate, micro_batches
from engine.checkpoint_tensors import read_learned
from engine.checkpoints import best_checkpoint, newest_checkpoint
from engine.encode import Encoded, EncodedItems, encode_all
from engine.language_model import LanguageModel
from engine.method import attach_method, check_precision, load_trained, parse_options
from engine.methods import get_method
from engine.plan import TrainPlan, check_dataset
from engine.prompt_sources import NOTHING_TO_START_FROM
from engine.trainer import Training
from templates.dataset import each_example, read_dataset
from templates.errors import ModelError, PlanError

_MOST_STARTING_EXAMPLES = 128  # enough to tell one start from another


def check_plan(plan: TrainPlan, dataset_folder: Path) -> None:
    """Refuse a plan that cannot even begin, before anything is made for it.

    Args:
        plan: what to do.
        dataset_folder: the prepared data.

    Raises:
        PlanError: the method, an option or the data is not what the plan says, or the method
            cannot serve this base.
    """
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    check_precision(spec, plan.base.precision)
    check_dataset(plan, read_dataset(dataset_folder))
    # A plan may have been written by hand: what fails on the base fails before weights are loaded.
    spec.attach(load_skeleton(open_planned_base(plan)), options)


def assemble(
    plan: TrainPlan,
    dataset_folder: Path,
    checkpoints: Path,
    sources: Mapping[str, Path] | None = None,
) -> Training:
    """Load everything a plan names, and check that it is still what was planned.

    Args:
        plan: what to do.
        dataset_folder: the prepared data.
        checkpoints: where the run saves.
        sources: id of another run -> what it learned, for a method that starts from that.

    Returns:
        The training, ready to iterate.

    Raises:
        PlanError: the method starts from another run, and there is none.
    """
    check_plan(plan, dataset_folder)
    dataset = read_dataset(dataset_folder)
    spec = get_method(plan.method.name)
    learned = {}
    if spec.start and newest_checkpoint(checkpoints)[0] is None:
        learned = {run: _source(file) for run, file in (sources or {}).items()}
        if not learned:
            raise PlanError(
                NOTHING_TO_START_FROM,
                where=spec.name,
                fix="Train a prompt tuning run first, and plan again",
            )
    language_model = tuned_model(plan, open_planned_base(plan))
    encoded: dict[str, EncodedItems] = {}
    notices = [spec.optimizer.notice] if spec.optimizer.notice else []
    for split in ("train", "validation"):
        encoded[split], found = encode_all(
            language_model,
            each_example(dataset_folder, split),
            dataset.template,
            max_length_tokens=plan.limits.max_length_tokens,
            too_long=plan.limits.too_long,
        )
        notices += [f"{split}: {notice}" for notice in found]
    if spec.start and learned:
        batches = _some_batches(plan, language_model, encoded["validation"])
        notices.append(spec.start(language_model, learned, batches))
    return Training(
        language_model=language_model,
        train=encoded["train"],
        validation=encoded["validation"],
        schedule=plan.schedule,
        limits=plan.limits,
        seed=plan.seed,
        checkpoints=checkpoints,
        notices=tuple(notices),
        new_optimizer=spec.new_optimizer(parse_options(spec, plan.method.options)),
    )


def _source(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        raise ModelError(
            "The prompt to start from cannot be read",
            where=file.name,
            fix="Start a new run of the plan",
        ) from None


def _some_batches(
    plan: TrainPlan, language_model: LanguageModel, items: Sequence[Encoded]
) -> list[Batch]:
    chosen = sorted(items[:_MOST_STARTING_EXAMPLES], key=lambda item: len(item.ids))
    lengths = [language_model.num_virtual_tokens + len(item.ids) for item in chosen]
    most_tokens = plan.schedule.micro_batch_tokens
    parts = micro_batches(lengths, most_tokens, packed=language_model.paths.packs)
    return [collate([chosen[number] for number in part], language_model) for part in parts]


def open_planned_base(plan: TrainPlan) -> BaseFolder:
    """Find the plan's base and check that its files are the planned ones.

    Args:
        plan: names and pins the base.

    Returns:
        The folder.

    Raises:
        PlanError: the files changed since the plan was made.
    """
    folder = locate_base(plan.base.id, plan.base.revision)
    if plan.base.fingerprint and folder.fingerprint != plan.base.fingerprint:
        raise PlanError(
            "The base model's files changed since this plan was made",
            where=plan.base.id,
            fix="Run plan again with the base as it is now",
        )
    return folder


def tuned_model(plan: TrainPlan, base: BaseFolder) -> LanguageModel:
    """Load the base and attach the plan's method with its start values.

    Args:
        plan: method, options, precision and seed.
        base: from `open_planned_base`.

    Returns:
        The model before the first step.
    """
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    return attach_method(load_base(base, plan.base.precision), spec, options, seed=plan.seed)


def learned_adapter(plan: TrainPlan, checkpoints: Path, base: BaseFolder) -> ImportedAdapter:
    """Read what a run learned, to put it on a base that is in memory already.

    Args:
        plan: the run's plan.
        checkpoints: the run's checkpoint folder.
        base: the one that is in memory.

    Returns:
        Method, options and learned tensors of the best checkpoint.

    Raises:
        ModelError: the run was trained on another base.
    """
    if plan.base.fingerprint and plan.base.fingerprint != base.fingerprint:
        raise ModelError(
            f"The run was trained on another base, {plan.base.id}",
            where=base.id,
            fix=f"Choose {plan.base.id} as the base",
        )
    options = parse_options(get_method(plan.method.name), plan.method.options)
    learned = read_learned(best_checkpoint(checkpoints))
    return ImportedAdapter(plan.method.name, options, dict(learned), seed=plan.seed)


def load_run(plan: TrainPlan, checkpoints: Path) -> LanguageModel:
    """Load the tuned model of a run, at its best checkpoint.

    Args:
        plan: the run's plan.
        checkpoints: the run's checkpoint folder.

    Returns:
        The model in evaluation mode.
    """
    checkpoint = best_checkpoint(checkpoints)
    language_model = tuned_model(plan, open_planned_base(plan))
    load_trained(language_model.model, read_learned(checkpoint))
    language_model.model.eval()
    return language_model
