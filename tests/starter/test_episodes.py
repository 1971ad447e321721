import random

import pytest

from starter import words
from starter.corpus import Corpus, load_corpus, sentences_of
from starter.episodes import EpisodeWriter
from starter.families import (
    HELD_OUT_FAMILIES,
    HELD_OUT_LABELS,
    Family,
    make_pools,
    training_families,
)
from templates.builtin import TEMPLATES
from templates.example import Example
from templates.render import render
from tests.starter.tiny_data import write_tiny_data


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(write_tiny_data(tmp_path_factory.mktemp("data")))[0]


@pytest.fixture(scope="module")
def families(corpus: Corpus) -> dict[str, tuple[float, Family]]:
    return training_families(
        make_pools(
            {name: sentences_of(part) for name, part in corpus.prose.items()},
            {name: [one.text for one in part] for name, part in corpus.questions.items()},
            corpus.intents,
        )
    )


def test_every_family_draws_tasks_with_answers(families: dict[str, tuple[float, Family]]) -> None:
    for name, (weight, family) in families.items():
        assert weight > 0
        for seed in range(20):
            generator = random.Random(seed)
            task = family(generator)
            if task.draw:
                text, answer = task.draw(generator)
                assert text and answer, name
            else:
                assert 2 <= len(task.classes) == len(set(task.names)), name
                assert all(draw(generator).strip() for draw in task.classes), name


def test_an_episode_reads_as_the_prompt_that_the_studio_shows(
    corpus: Corpus, families: dict[str, tuple[float, Family]]
) -> None:
    """The studio's own rendering of the same items gives the same text."""
    only = {"look up": families["look up"]}
    writer = EpisodeWriter(only, corpus.label_words, random.Random(3))
    template = TEMPLATES["generation"].model_copy(update={"wording": "{text}"})
    product = 0
    for _ in range(40):
        pieces = list(writer.write(600))
        written = "".join(piece.text for piece in pieces)
        instruction = "" if len(pieces) % 2 == 0 else pieces.pop(0).text.removesuffix("\n\n")
        asked, answers = pieces[::2], pieces[1::2]
        assert all(piece.supervised for piece in answers)
        assert not any(piece.supervised for piece in asked)
        if not asked[0].text.endswith(template.separator) or '"' in asked[0].text:
            continue
        product += 1
        items = [
            Example(
                fields={"text": ask.text.strip().removesuffix("###").strip()},
                references=(answer.text.removeprefix(" ").removesuffix(template.stop),),
            )
            for ask, answer in zip(asked, answers, strict=True)
        ]
        *shots, last = items
        rendered = render(last, template, demonstrations=shots, instruction=instruction)
        assert written == rendered.context + rendered.prompt + rendered.completion
    assert product > 10


def test_equal_seeds_write_equal_episodes(
    corpus: Corpus, families: dict[str, tuple[float, Family]]
) -> None:
    first, second = (
        [EpisodeWriter(families, corpus.label_words, random.Random(5)).write(900)] for _ in range(2)
    )
    assert first == second


def test_what_is_held_out_is_in_no_training_episode(
    corpus: Corpus, families: dict[str, tuple[float, Family]]
) -> None:
    used = {word for topic in words.TOPICS.values() for word in topic}
    assert not used & set(HELD_OUT_LABELS)
    assert not set(words.HELD_OUT_TOPICS) & set(words.TOPICS)
    assert not {s for part in words.HELD_OUT_SYLLABLES for s in part} & set(words.SYLLABLES)
    writer = EpisodeWriter(families, [*corpus.label_words, *HELD_OUT_LABELS], random.Random(0))
    answers = {
        piece.text.strip(" .;\n")
        for _ in range(300)
        for piece in writer.write(600)
        if piece.supervised
    }
    assert not any(label in answer.split() for answer in answers for label in HELD_OUT_LABELS)


@pytest.mark.parametrize("name", HELD_OUT_FAMILIES)
def test_a_held_out_family_gives_balanced_rows_and_new_tasks(name: str) -> None:
    draw = HELD_OUT_FAMILIES[name]
    rows = draw(random.Random(1), 120)
    labels = [label for _, label in rows]
    counts = [labels.count(label) for label in set(labels)]
    assert len(rows) == 120 and max(counts) - min(counts) <= 1
    assert rows == draw(random.Random(1), 120)
    assert {label for _, label in draw(random.Random(2), 120)} != set(labels)
