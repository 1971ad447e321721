import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import engine.sampling
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.events import (
    Evaluated,
    Event,
    Finished,
    Sample,
    Sampled,
    Saved,
    Stamped,
    Started,
    Stepped,
    Stopped,
    from_json,
    to_json,
)
from engine.job_status import JobStatus
from engine.jobs import create_job
from engine.plan import Limits
from engine.sampling import Sampler, varied
from engine.trainer import Training, train
from templates.builtin import TEMPLATES
from templates.errors import StudioError
from templates.example import Example, Turn
from tests.engine.tiny import TEMPLATE, TICKETS, save_tiny, ticket, tiny_model
from tests.engine.train_tiny import digest, tiny_training

LABELS = ("billing", "returns", "shipping")
GENERATION = TEMPLATES["generation"]
WRITTEN = [
    Example(fields={"text": "the kettle"}, references=("it leaks", "water"), source_rows=(4, 5)),
    Example(fields={"text": "the invoice"}, references=("wrong",), source_rows=(6,)),
]


@pytest.fixture
def all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a round takes long, and the next may be left out; short answers do."""
    monkeypatch.setattr(engine.sampling, "_SHORT_SECONDS", math.inf)
    monkeypatch.setattr(engine.sampling, "_MOST_NEW_TOKENS", 8)


def never() -> bool:
    return False


def training(folder: Path, run: str, method: str = "lora", **changes: object) -> Training:
    base = folder / "base"
    return tiny_training(
        base if base.exists() else save_tiny(base, "llama"), folder / run, method, **changes
    )


def label_sampler(task: Training) -> Sampler:
    return Sampler(task.language_model, varied(TICKETS, 3), TEMPLATE, LABELS)


def text_sampler(task: Training) -> Sampler:
    return Sampler(task.language_model, WRITTEN, GENERATION)


def rounds(events: list[Event]) -> list[Sampled]:
    return [event for event in events if isinstance(event, Sampled)]


@pytest.mark.usefixtures("all_rounds")
@pytest.mark.parametrize("method", ["lora", "full", "qlora", "prompt_tuning"])
@pytest.mark.parametrize("open_one", [label_sampler, text_sampler], ids=["labels", "text"])
def test_looking_changes_no_bit_not_even_over_a_kill(
    tmp_path: Path, method: str, open_one: Callable[[Training], Sampler]
) -> None:
    unseen = training(tmp_path, "unseen", method)
    list(train(unseen))
    cut = training(tmp_path, "seen", method)
    for event in (story := train(cut, sampler=open_one(cut))):
        if isinstance(event, Stepped) and event.step == 8:
            break
    story.close()
    again = training(tmp_path, "seen", method)
    events = list(train(again, sampler=open_one(again)))
    assert [one.step for one in rounds(events)] == [9, 12], "step 0 is told once"
    assert digest(again) == digest(unseen)


@pytest.mark.usefixtures("all_rounds")
def test_a_round_before_the_first_step_and_after_each_save(tmp_path: Path) -> None:
    task = training(tmp_path, "run")
    events = list(train(task, sampler=label_sampler(task)))
    assert [one.step for one in rounds(events)] == [0, 3, 6, 9, 12]
    for before, event in itertools.pairwise(events):
        assert not isinstance(event, Sampled) or event.step == 0 or isinstance(before, Saved)
    for one in rounds(events):
        assert [sample.expected for sample in one.samples] == ["billing", "shipping", "returns"]
        assert [sample.source_rows for sample in one.samples] == [(1,), (2,), (3,)]
        assert {sample.answer for sample in one.samples} <= set(LABELS)
        assert one.samples[0].prompt == TEMPLATE.fill(TICKETS[0].fields)
        assert one.seconds > 0


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_it_answers_as_a_comparison_does_and_leaves_the_model_as_it_was(
    tmp_path: Path, chat: bool, mode: bool
) -> None:
    model = tiny_model(tmp_path / "base", "qwen3", chat=chat)
    model.model.train(mode)
    before = torch.get_rng_state()
    for template, examples, labels in ((TEMPLATE, TICKETS[:3], LABELS), (GENERATION, WRITTEN, ())):
        [one] = Sampler(model, examples, template, labels).sample(7, never)
        question = Question(template, tuple(labels), 64)
        for example, sample in zip(examples, one.samples, strict=True):
            prompts = build_prompts(model, [example], question)
            assert [sample.answer] == answers_to(model, prompts, question)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training == mode for module in model.model.modules())
    assert all(parameter.grad is None for parameter in model.model.parameters())


@pytest.mark.usefixtures("all_rounds")
@pytest.mark.parametrize("open_one", [label_sampler, text_sampler], ids=["labels", "text"])
def test_a_stop_at_any_instant_of_a_round_costs_no_bit(
    tmp_path: Path, open_one: Callable[[Training], Sampler]
) -> None:
    changes = {"limits": Limits(max_steps=4)}
    whole = training(tmp_path, "whole", **changes)
    list(train(whole))
    for call in itertools.count(1, 3):
        run = f"stopped-{call}"
        task = training(tmp_path, run, **changes)
        calls = itertools.count(1)
        stop = iter(lambda calls=calls, call=call: next(calls) >= call, None)
        events = list(train(task, sampler=open_one(task), should_stop=lambda s=stop: next(s)))
        if not isinstance(events[-1], Stopped):
            break
        again = training(tmp_path, run, **changes)
        assert isinstance(list(train(again, sampler=open_one(again)))[-1], Finished)
        assert digest(again) == digest(whole), f"stopped at look {call}"
    assert call > 6, "looks fell into rounds, steps and evaluations"


def test_a_stop_is_heard_at_the_next_token(tmp_path: Path) -> None:
    sampler = Sampler(tiny_model(tmp_path / "base", "llama"), WRITTEN, GENERATION)
    looks = iter([False, False, False, True])
    assert list(sampler.sample(3, lambda: next(looks))) == []
    assert next(looks, None) is None, "nobody is asked after a yes"


def test_texts_are_cut_so_that_an_event_stays_small(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "base", "llama")
    nasty = "\x00\u202e<script>\U0001f600" * 300
    examples = [ticket(nasty, "billing", row) for row in range(1, 11)]
    [one] = Sampler(model, examples, TEMPLATE, LABELS).sample(1, never)
    assert len(to_json(Stamped(one, 1.7e9, 5.0)).encode()) < 8 << 10
    [one] = Sampler(model, [ticket("word " * 300, "billing")], TEMPLATE, LABELS).sample(1, never)
    assert len(one.samples[0].prompt) == 400 and one.samples[0].prompt.endswith("word…")
    assert one.samples[0].expected == "billing", "short ones stay whole"


def test_a_conversation_is_shown_with_its_turns(tmp_path: Path) -> None:
    turns = tuple(
        Turn(role, text) for role, text in (("user", "hi"), ("assistant", "yes?"), ("user", "bye"))
    )
    example = Example(turns=(*turns, Turn("assistant", "so long")), source_rows=(1,))
    model = tiny_model(tmp_path / "base", "llama", chat=True)
    [one] = Sampler(model, [example], TEMPLATES["chat"]).sample(1, never)
    assert one.samples[0].prompt == "user: hi\nassistant: yes?\nuser: bye"
    assert one.samples[0].expected == "so long"


def test_different_labels_come_first_and_no_example_twice() -> None:
    assert [one.label for one in varied(TICKETS, 3)] == ["billing", "shipping", "returns"]
    five = varied(TICKETS, 5)
    assert [one.source_rows for one in five] == [(1,), (2,), (3,), (4,), (5,)]
    assert varied(TICKETS, 0) == [] and varied([], 3) == []
    twins = [ticket("same", "billing"), ticket("same", "billing")]
    assert len(varied(twins, 10)) == 2
    assert varied(WRITTEN, 1) == WRITTEN[:1]


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, 30 + 17), (4.0, 3), (60.0, 1)])
def test_rounds_take_a_twentieth_of_the_time_and_a_bounded_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    """An evaluation a second for 200 seconds, and a model that takes `seconds` for a round."""
    sampler = Sampler(tiny_model(tmp_path / "base", "llama"), TICKETS[:1], TEMPLATE, LABELS)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(engine.sampling, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def think() -> bool:
        clock.now += seconds
        return False

    found = 0
    while clock.now < 200:
        clock.now += 1
        found += len(list(sampler.sample(1, think)))
    assert found == expected
    assert seconds < 0.5 or (found - 1) * seconds <= 200 / 20


def test_nothing_to_sample_costs_nothing(tmp_path: Path) -> None:
    task = training(tmp_path, "run", limits=Limits(max_steps=1))
    empty = Sampler(task.language_model, [], TEMPLATE, LABELS)
    looks: list[int] = []
    assert rounds(list(train(task, sampler=empty, should_stop=lambda: bool(looks.append(1))))) == []
    assert len(looks) == 1 + 1, "before the step and the validation batch"


def test_no_room_for_an_answer_is_said_before_the_first_round(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "base", "llama")
    with pytest.raises(StudioError, match="do not fit the context"):
        Sampler(model, TICKETS[:1], TEMPLATE, ("word " * 200,))


ROUND = Sampled(3, (Sample('naïve\n"', "", "\0", (1, 2)), Sample("a", "b", "c", ())), 0.25)


def test_a_round_survives_its_line() -> None:
    stamped = Stamped(ROUND, 1.7e9, 5.0)
    assert from_json(to_json(stamped)) == stamped
    assert "\n" not in to_json(stamped)


@pytest.mark.parametrize(
    "samples",
    ["3", '"ab"', "[3]", "[[]]", '[{"prompt":"a"}]', '[{"source_rows":3}]', "[null]",
     '[{"prompt":"a","expected":"b","answer":"c","source_rows":1}]',
     '[{"prompt":"a","expected":"b","answer":"c","source_rows":[1],"more":1}]'],
)  # fmt: skip
def test_a_round_of_something_else_is_no_event(samples: str) -> None:
    with pytest.raises(ValueError):
        from_json(f'{{"event":"Sampled","at":1,"step":1,"seconds":1,"samples":{samples}}}')


def test_a_state_is_read_behind_the_largest_round(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    text = "x" * 200
    large = tuple(Sample(text, text, text, (1,)) for _ in range(10))

    def tell(*events: Event) -> JobStatus:
        for event in events:
            attempt.write(event)
        return job.status()

    attempt = job.start_attempt()
    for step in range(1, 30):
        status = tell(
            Stepped(step, 0.5, 0.1, 1.0, 10, 0.1),
            Evaluated(step, 0.5, 0.5, True, 0.1),
            Saved(step, f"step-{step}", True),
            Sampled(step, large, 0.1),
        )
        assert (status.step, status.loss) == (step, 0.5)


def test_rounds_that_are_taken_again_are_told_once(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    first, second = job.start_attempt(), job.start_attempt()
    for step in (0, 3, 6):
        first.write(Sampled(step, (), 0.1))
    second.write(Started(9, 4, 5, 50))
    second.write(Sampled(6, (), 0.2))
    assert [(e.step, e.seconds) for e in rounds(job.events())] == [(0, 0.1), (3, 0.1), (6, 0.2)]
