"""From a plan to something to train, and from a finished run to a model to use."""

from pathlib import Path

from engine.adapter_import import ImportedAdapter
from engine.base_model import BaseFolder, load_base, locate_base
from engine.checkpoint_tensors import read_learned
from engine.checkpoints import best_checkpoint
from engine.encode import encode_all
from engine.language_model import LanguageModel
from engine.method import attach_method, load_trained, parse_options
from engine.methods import get_method
from engine.plan import TrainPlan, check_dataset
from engine.trainer import Training
from templates.dataset import read_dataset, read_split
from templates.errors import ModelError, PlanError


def check_plan(plan: TrainPlan, dataset_folder: Path) -> None:
    """Refuse a plan that cannot even begin, before anything is made for it.

    Args:
        plan: what to do.
        dataset_folder: the prepared data.

    Raises:
        PlanError: the method, an option or the data is not what the plan says.
    """
    parse_options(get_method(plan.method.name), plan.method.options)
    check_dataset(plan, read_dataset(dataset_folder))
    open_planned_base(plan)


def assemble(plan: TrainPlan, dataset_folder: Path, checkpoints: Path) -> Training:
    """Load everything a plan names, and check that it is still what was planned.

    Args:
        plan: what to do.
        dataset_folder: the prepared data.
        checkpoints: where the run saves.

    Returns:
        The training, ready to iterate.

    """
    check_plan(plan, dataset_folder)
    dataset = read_dataset(dataset_folder)
    spec = get_method(plan.method.name)
    language_model = tuned_model(plan, open_planned_base(plan))
    encoded, notices = {}, []
    for split in ("train", "validation"):
        encoded[split], found = encode_all(
            language_model,
            read_split(dataset_folder, split),
            dataset.template,
            max_length_tokens=plan.limits.max_length_tokens,
            too_long=plan.limits.too_long,
        )
        notices += [f"{split}: {notice}" for notice in found]
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
