import pytest

from engine.comparing import few_shot
from engine.comparing.few_shot import search
from engine.comparing.prompting import Question, build_prompts
from tests.engine.tiny import CONTEXT, TEMPLATE, TICKETS, ticket, tiny_model

LABELS = ("billing", "returns", "shipping")
TRAIN = [ticket(f"{word} {row}", label, row) for row, (word, label) in enumerate(
    [(word, label) for word in ("pay", "send", "back", "late") for label in LABELS], 1
)]  # fmt: skip
VALIDATION = [ticket(f"the {row}", LABELS[row % 3], row) for row in range(101, 141)]
SHORT = TEMPLATE.model_copy(update={"instruction": "{labels}?"})
QUESTION = Question(SHORT, LABELS, max_new_tokens=4, batch_size=64)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


def looked(language_model, **changes):
    settings = {
        "train": TRAIN, "validation": VALIDATION, "test_lengths": [10] * 20, "seed": 0,
        "rounds": (8, 20), **changes,
    }  # fmt: skip
    return search(language_model, QUESTION, **settings)


def test_the_best_on_validation_is_chosen_within_a_budget(language_model, monkeypatch):
    asked = []
    answers_to = few_shot.answers_to

    def spy(model, prompts, question):
        asked.append(len(prompts.prompt_ids))
        return answers_to(model, prompts, question)

    monkeypatch.setattr(few_shot, "answers_to", spy)
    steps = []
    prompt, table = looked(language_model, progress=lambda *step: steps.append(step))
    trials = table.trials
    assert {trial.num_rows for trial in trials} == {8, 20, 40}
    finalists = [trial for trial in trials if trial.num_rows == 40]
    (chosen,) = [trial for trial in trials if trial.chosen]
    assert chosen.score == max(trial.score for trial in finalists)
    assert (chosen.num_shots, chosen.draw) == (prompt.candidate.num_shots, prompt.candidate.draw)
    assert table.lowest <= table.highest and table.first_rows == 8
    assert sum(asked) == steps[-1][0] == steps[-1][1]
    assert sum(asked) <= 8 * len(trials) + 20 * (0.3 * len(trials) + 1) + 40 * 4


def test_demonstrations_come_from_training_rows_only(language_model):
    prompt, _ = looked(language_model)
    rows = {row for shot in prompt.demonstrations for row in shot.source_rows}
    assert rows <= set(range(1, 13))
    assert len(prompt.demonstrations) == prompt.candidate.num_shots


def test_the_same_seed_finds_the_same(language_model):
    assert looked(language_model) == looked(language_model)
    assert looked(language_model)[1] != looked(language_model, seed=1)[1]


def test_demonstrations_leave_room_for_the_items(language_model):
    _, table = looked(language_model)
    _, tight = looked(language_model, test_lengths=[60] * 20)
    most = max(trial.context_tokens for trial in tight.trials)
    assert most <= CONTEXT - 60 < max(trial.context_tokens for trial in table.trials)
    # One outlier among many rows may be cut: it must not rob the prompt of its demonstrations.
    _, outlier = looked(language_model, test_lengths=[10] * 200 + [110])
    assert len(outlier.trials) == len(table.trials)


def test_no_demonstration_fits(language_model):
    assert looked(language_model, test_lengths=[CONTEXT - 10] * 60) is None
    assert looked(language_model, train=[ticket("x" * 200, "billing", 1)]) is None


def test_few_validation_rows_make_one_round(language_model):
    _, table = looked(language_model, validation=TICKETS[:6], rounds=())
    assert {trial.num_rows for trial in table.trials} == {6}


def test_prompts_differ_from_each_other(language_model):
    prompt, _ = looked(language_model)
    built = build_prompts(
        language_model, TICKETS, QUESTION,
        instruction=prompt.instruction, demonstrations=prompt.demonstrations,
    )  # fmt: skip
    bare = build_prompts(language_model, TICKETS, QUESTION)
    assert len(built.context_ids) - len(bare.context_ids) == prompt.context_tokens
