import fcntl
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.answering.generation import generate, stream
from engine.base_model import load_base
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.jobs import Job
from engine.language_model import LanguageModel
from engine.method import trainable
from engine.methods import all_methods
from engine.plan import TrainPlan
from engine.runs import load_run, open_planned_base, tuned_model
from engine.trying import Bench, Piece, TryRequest, TryResult, tuned_twin
from templates.dataset import read_dataset
from templates.errors import DataError, RunError
from templates.example import Example
from templates.render import describe_task
from tests.engine.tiny import ARCHITECTURES, save_tiny, tiny_model
from tests.engine.tried import LABELS, dataset_for, tiny_plan, trained_run

TEXT = "where is my parcel"
CASES = [
    pytest.param(name, precision, id=f"{name}-{precision}")
    for name, spec in all_methods().items()
    for precision in spec.precisions
]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_run(tmp_path_factory.mktemp("classifier"), "classification")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_run(tmp_path_factory.mktemp("writer"), "generation")


def plan_of(arguments: dict[str, Any]) -> TrainPlan:
    return TrainPlan.model_validate(Job(arguments["run_folder"]).request("train")["plan"])


def tried(bench: Bench, arguments: dict[str, Any], **more: Any) -> tuple[list[Piece], TryResult]:
    answering = bench.answer(TryRequest(**arguments | more))
    pieces = []
    while True:
        try:
            pieces.append(next(answering))
        except StopIteration as end:
            return pieces, end.value


def said_by(pieces: list[Piece], arm: str) -> str:
    return "".join(piece.text for piece in pieces if piece.arm == arm)


def wandering(folder: Path, architecture: str) -> LanguageModel:
    """A tied head repeats its input; this one goes through many tokens, lone bytes too."""
    model = tiny_model(folder, architecture)
    embedding = model.model.get_input_embeddings().weight
    order = torch.randperm(len(embedding), generator=torch.Generator().manual_seed(2))
    model.model.get_output_embeddings().weight = torch.nn.Parameter(embedding[order])
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pieces_join_to_the_greedy_answer(tmp_path: Path, architecture: str) -> None:
    model = wandering(tmp_path, architecture)
    prompt, characters = model.encode("my parcel"), set()

    def check(stop: str, most: int) -> str:
        [whole] = generate(model, [], [prompt], stop=stop, max_new_tokens=most)
        pieces = stream(model, [], [prompt], stop=stop, max_new_tokens=most)
        assert "".join(text for _, text in pieces) == whole
        return whole

    for words in ("the invoice", "é"):
        prompt = model.encode(words)
        free = check("", 40)
        characters |= set(free)
        for start in range(0, len(free) - 4, 13):  # stops that begin, end and repeat anywhere
            check(free[start : start + 3], 40)
            check(free[start] + "never", 40)
    for most in (1, 2, 500):
        check(" END", most)
    if architecture == "gpt2":
        assert len(characters) > 20 and "\ufffd" in characters, "the hard case is in the test"


def logits_of(model: LanguageModel) -> torch.Tensor:
    ids = torch.tensor([model.virtual_token_ids + model.encode(TEXT)])
    with torch.no_grad(), model.autocast():
        return model.model(input_ids=ids).logits


@pytest.mark.parametrize(("method", "precision"), CASES)
def test_a_twin_answers_as_the_tuned_model_and_leaves_the_base_alone(
    tmp_path: Path, method: str, precision: str
) -> None:
    path = save_tiny(tmp_path / "base", "llama")
    plan = tiny_plan(path, dataset_for(tmp_path / "ds-1", "classification"), method, precision)
    alone = tuned_model(plan, open_planned_base(plan))
    alone.model.eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in trainable(alone.model).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    learned = {name: value.detach().clone() for name, value in trainable(alone.model).items()}
    base = load_base(open_planned_base(plan), plan.base.precision)
    before, kept = logits_of(base), {k: v.clone() for k, v in base.model.state_dict().items()}
    twin = tuned_twin(base, plan, learned)
    assert torch.equal(logits_of(twin), logits_of(alone))
    assert torch.equal(logits_of(base), before) and not torch.equal(before, logits_of(twin))
    assert all(torch.equal(value, kept[name]) for name, value in base.model.state_dict().items())
    places = {parameter.data_ptr() for parameter in base.model.parameters()}
    held_anew = [
        name for name, value in twin.model.named_parameters() if value.data_ptr() not in places
    ]
    of_base = {name for name, _ in base.model.named_parameters()}
    added = {
        name
        for name, _ in twin.model.named_parameters()
        if name.replace(".base.", ".") not in of_base
    }
    assert set(held_anew) == set(learned) | added, "what is the base's is held once"


def test_labels_come_with_probabilities_as_predict_and_zero_shot_give_them(
    classifier: dict[str, Any],
) -> None:
    pieces, result = tried(Bench(), classifier, fields={"text": TEXT})
    for arm in (result.base, result.tuned):
        assert {found.label for found in arm.labels} == set(LABELS)
        ratios = [found.probability for found in arm.labels]
        assert sum(ratios) == pytest.approx(1) and ratios == sorted(ratios, reverse=True)
        assert arm.answer == arm.labels[0].label and arm.seconds > 0 and not arm.was_cut
    assert [(piece.arm, piece.text) for piece in pieces] == [
        ("base", result.base.answer), ("tuned", result.tuned.answer),
    ]  # fmt: skip
    plan = plan_of(classifier)
    dataset = read_dataset(classifier["dataset_folder"])
    question = Question(dataset.template, dataset.labels, 8)
    example = [Example(fields={"text": TEXT}, source_rows=(1,))]
    tuned = load_run(plan, Job(classifier["run_folder"]).checkpoints)
    base = load_base(open_planned_base(plan), plan.base.precision)
    instruction = describe_task(dataset.template, dataset.labels)
    for model, words, arm in ((tuned, "", result.tuned), (base, instruction, result.base)):
        prompts = build_prompts(model, example, question, instruction=words)
        assert answers_to(model, prompts, question) == [arm.answer]
        assert arm.prompt_tokens == prompts.tokens_per_item


def test_free_text_is_what_the_models_answer_without_streaming(writer: dict[str, Any]) -> None:
    pieces, result = tried(Bench(), writer, fields={"input": TEXT}, max_new_tokens=24)
    assert said_by(pieces, "base") == result.base.answer
    assert said_by(pieces, "tuned") == result.tuned.answer
    assert [piece.arm for piece in pieces] == sorted(piece.arm for piece in pieces)
    tuned = load_run(plan_of(writer), Job(writer["run_folder"]).checkpoints)
    question = Question(read_dataset(writer["dataset_folder"]).template, (), 24)
    prompts = build_prompts(tuned, [Example(fields={"input": TEXT}, source_rows=(1,))], question)
    assert answers_to(tuned, prompts, question) == [result.tuned.answer]
    assert result.tuned.answer != result.base.answer and not result.tuned.labels


def test_a_conversation_is_answered_through_the_chat_template(tmp_path: Path) -> None:
    arguments = trained_run(tmp_path, "chat", chat=True)
    turns = [{"role": "user", "content": TEXT}]
    pieces, result = tried(Bench(), arguments, turns=turns)
    assert said_by(pieces, "tuned") == result.tuned.answer
    for wrong in ([], [*turns, {"role": "assistant", "content": "yes"}]):
        with pytest.raises(DataError, match=r"nothing to answer.*user turn"):
            tried(Bench(), arguments, turns=wrong)


def test_models_are_loaded_once_until_the_weights_change(
    classifier: dict[str, Any], writer: dict[str, Any]
) -> None:
    bench = Bench()
    tried(bench, classifier, fields={"text": TEXT})
    first = bench._pair
    tried(bench, classifier, fields={"text": "another"})
    assert bench._pair is first
    manifest = first.checkpoint.folder / "manifest.json"
    content = manifest.read_text()
    manifest.unlink()
    tried(bench, classifier, fields={"text": TEXT})  # an older checkpoint is the best now
    second = bench._pair
    assert second is not first
    manifest.write_text(content)
    tried(bench, writer, fields={"input": TEXT}, max_new_tokens=2)
    assert bench._pair is not second
    bench.unload()
    assert bench._pair is None


def test_a_busy_device_is_a_sentence_and_an_ended_try_lets_go(classifier: dict[str, Any]) -> None:
    lock = classifier["device_lock"]
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=r"busy with a job. Wait until it ends, or stop it"):
            tried(Bench(), classifier, fields={"text": TEXT})
    answering = Bench().answer(TryRequest(**classifier, fields={"text": TEXT}))
    next(answering)
    with lock.open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    answering.close()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_tried_is_said(classifier: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no field 'colour'.*fields are: text"):
        tried(Bench(), classifier, fields={"colour": "red"})
    for blank in ({}, {"text": " \n"}):
        with pytest.raises(DataError, match=r"nothing to answer.*text for text"):
            tried(Bench(), classifier, fields=blank)
    dataset_for(tmp_path / "ds-2", "generation")
    with pytest.raises(DataError, match=r"trained on other data.*Use ds-1"):
        tried(Bench(), classifier, fields={"text": "a"}, dataset_folder=tmp_path / "ds-2")
    unfinished = Job(classifier["run_folder"].parent / "train-2")
    content = (classifier["run_folder"] / "request.json").read_text()
    unfinished.folder.mkdir()
    (unfinished.folder / "request.json").write_text(content)
    with pytest.raises(RunError, match=r"The run is new.*Let it finish first"):
        tried(Bench(), classifier, fields={"text": "a"}, run_folder=unfinished.folder)


def test_a_long_text_is_cut_and_says_so(classifier: dict[str, Any]) -> None:
    _, result = tried(Bench(), classifier, fields={"text": "parcel " * 200})
    assert result.tuned.was_cut
