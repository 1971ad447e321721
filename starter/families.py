"""Families of little tasks: each draw makes a new task, with a rule that the reader must find out.

A task with classes says how to draw a text of each class; what the classes are *called* is drawn
anew for every episode (`episodes.py`), so that only the demonstrations tell. A task without
classes brings its answers. `HELD_OUT_FAMILIES` are kept out of training, rules and label words
alike, and are what the model card measures.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starter import words

Row = tuple[str, str]  # text, answer
Draw = Callable[[random.Random], str]

_FEWEST_SENTENCES = 30  # below that a word or a source is no class


@dataclass(frozen=True)
class Task:
    """One little task.

    Attributes:
        classes: how to draw a text of each class; empty where answers are free text.
        names: what the classes are really called.
        draw: draws a text with its answer; for tasks without classes.
    """

    classes: tuple[Draw, ...] = ()
    names: tuple[str, ...] = ()
    draw: Callable[[random.Random], Row] | None = None


Family = Callable[[random.Random], Task]


@dataclass(frozen=True)
class Pools:
    """Real texts that tasks are made of; only of sources that weights may be trained on.

    Attributes:
        sentences: sentences of the prose, by source.
        by_word: sentences that contain a word.
        questions: questions, by the set they come from.
        intents: one table of texts by intent for each data set.
    """

    sentences: Mapping[str, Sequence[str]]
    by_word: Mapping[str, Sequence[str]]
    questions: Mapping[str, Sequence[str]]
    intents: Sequence[Mapping[str, Sequence[str]]]


def make_pools(
    sentences: Mapping[str, Sequence[str]],
    questions: Mapping[str, Sequence[str]],
    intents: Sequence[Mapping[str, Sequence[str]]],
) -> Pools:
    """Index the sentences by the words they contain.

    Args:
        sentences: by source.
        questions: by set.
        intents: texts by intent, for each data set.

    Returns:
        The pools; words that are too rare or in every third sentence are left out.
    """
    by_word: dict[str, list[str]] = {}
    everything = [sentence for part in sentences.values() for sentence in part]
    for sentence in everything:
        for word in set(re.findall(r"[a-z]{3,}", sentence.lower())):
            by_word.setdefault(word, []).append(sentence)
    most = max(_FEWEST_SENTENCES, len(everything) // 30)
    kept = {w: found for w, found in by_word.items() if _FEWEST_SENTENCES <= len(found) <= most}
    enough = {name: part for name, part in sentences.items() if len(part) >= _FEWEST_SENTENCES}
    return Pools(enough, kept, questions, intents)


def _list_of(draw_word: Draw, generator: random.Random) -> str:
    return ", ".join(draw_word(generator) for _ in range(generator.randint(2, 5)))


_FRAMES = (
    "The {a} was near the {b}.",
    "We talked about the {a} and the {b}.",
    "She drew a {a} on the paper.",
    "There is a {a} in this picture.",
    "He told us a story about a {a}.",
    "I thought about the {a} all day.",
    "What do you know about the {a}?",
    "{A}, {b}.",
    "{a}",
    "{a} {b}",
)


def _topic_text(topic: Sequence[str], form: int) -> Draw:
    def draw(generator: random.Random) -> str:
        a, b = generator.choice(topic), generator.choice(topic)
        if form == 0:
            return a
        if form == 1:
            return _list_of(lambda inner: inner.choice(topic), generator)
        return generator.choice(_FRAMES).format(a=a, b=b, A=a.capitalize())

    return draw


def _topics(generator: random.Random, topics: Mapping[str, Sequence[str]] = words.TOPICS) -> Task:
    count = min(len(topics), generator.choice((2, 2, 3, 3, 4, 5)))
    names = generator.sample(sorted(topics), count)
    form = generator.randrange(3)
    return Task(tuple(_topic_text(topics[name], form) for name in names), tuple(names))


def _feeling_text(adjectives: Sequence[str]) -> Draw:
    def draw(generator: random.Random) -> str:
        thing, other = generator.choice(words.THINGS), generator.choice(words.THINGS)
        word, again = generator.choice(adjectives), generator.choice(adjectives)
        adverb = generator.choice(words.ADVERBS)
        frame = generator.choice(
            (
                "{word}", "{word}, {again}", "the {thing} is {adverb} {word}",
                "a {word} {thing}", "The {thing} was {word} and the {other} {again}.",
                "I found the {thing} {adverb} {word} .", "{adverb} {word} {thing}",
                "{word} , {again} , and {adverb} {word}",
                "It is a {word} {thing} with a {again} {other}.",
                "we thought the {thing} {adverb} {word}, and the {other} too",
            )
        )  # fmt: skip
        return frame.format(thing=thing, other=other, word=word, again=again, adverb=adverb)

    return draw


def _feelings(pools: Pools) -> Family:
    good, bad = set(words.GOOD), set(words.BAD)
    found: dict[str, list[str]] = {"positive": [], "negative": []}
    for sentence in (sentence for part in pools.sentences.values() for sentence in part):
        inside = set(re.findall(r"[a-z]+", sentence.lower()))
        score = len(inside & good) - len(inside & bad)
        if abs(score) >= 2:
            found["positive" if score > 0 else "negative"].append(sentence)

    def family(generator: random.Random) -> Task:
        pairs = [_feeling_text(words.GOOD), _feeling_text(words.BAD)]
        names = ["positive", "negative"]
        if min(map(len, found.values())) >= _FEWEST_SENTENCES and generator.random() < 0.5:
            pairs = [_one_of(found[name]) for name in names]
        if generator.random() < 0.5:
            pairs.reverse()
            names.reverse()
        return Task(tuple(pairs), tuple(names))

    return family


def _one_of(texts: Sequence[str]) -> Draw:
    return lambda generator: generator.choice(texts)


def _some_of(groups: Mapping[str, Sequence[str]], most: int) -> Family:
    names = sorted(groups)

    def family(generator: random.Random) -> Task:
        chosen = generator.sample(names, min(len(names), generator.randint(2, most)))
        return Task(tuple(_one_of(groups[name]) for name in chosen), tuple(chosen))

    return family


def _with_word(pools: Pools) -> Family:
    names = sorted(pools.by_word)

    def family(generator: random.Random) -> Task:
        chosen = generator.sample(names, min(len(names), generator.randint(2, 4)))
        return Task(tuple(_one_of(pools.by_word[name]) for name in chosen), tuple(chosen))

    return family


def _split_by(pools: Pools, name: str, test: Callable[[str], bool]) -> Family:
    """Two classes of sentences: those that pass a test and those that do not."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for sentence in (sentence for part in pools.sentences.values() for sentence in part):
        sides[test(sentence)].append(sentence)

    def family(_: random.Random) -> Task:
        return Task(tuple(map(_one_of, filter(None, sides.values()))), (name, f"not {name}"))

    return family


def _loud(pools: Pools) -> Family:
    everything = [sentence for part in pools.sentences.values() for sentence in part]

    def family(_: random.Random) -> Task:
        return Task(
            (
                lambda generator: generator.choice(everything).upper(),
                lambda generator: generator.choice(everything).lower(),
            ),
            ("capitals", "small letters"),
        )

    return family


def _first_word(generator: random.Random) -> Task:
    pool = [word for topic in words.TOPICS.values() for word in topic]
    openers = generator.sample(pool, generator.randint(2, 4))

    def starting(opener: str) -> Draw:
        return lambda inner: " ".join([opener, *inner.sample(pool, inner.randint(1, 4))])

    return Task(tuple(starting(opener) for opener in openers), tuple(openers))


def _contains_marker(generator: random.Random) -> Task:
    """One odd word somewhere in a list tells the class."""
    pool = [word for topic in words.TOPICS.values() for word in topic]
    markers = sorted({invented_word(generator) for _ in range(generator.randint(2, 5))})

    def marked(marker: str) -> Draw:
        def draw(inner: random.Random) -> str:
            some = [*inner.sample(pool, inner.randint(1, 4)), marker]
            inner.shuffle(some)
            return " ".join(some)

        return draw

    return Task(tuple(marked(marker) for marker in markers), tuple(markers))


def _even_or_odd(_: random.Random) -> Task:
    return Task(
        (
            lambda generator: str(2 * generator.randrange(50)),
            lambda generator: str(2 * generator.randrange(50) + 1),
        ),
        ("even", "odd"),
    )


def _look_up(pools: Pools) -> Family:
    """A small dictionary made up on the spot: what was shown before must be found again.

    Its words are thousands: of a few, the model learns to guess instead of looking.
    """
    pool = sorted({word for topic in words.TOPICS.values() for word in topic} | set(pools.by_word))

    def family(generator: random.Random) -> Task:
        some_keys: list[list[str]] = [
            generator.sample(pool, 6),
            [invented_word(generator) for _ in range(6)],
            [str(generator.randrange(10, 100)) for _ in range(6)],
            [generator.choice("ABCDEFGH") + str(generator.randrange(10)) for _ in range(6)],
        ]
        keys = list(dict.fromkeys(generator.choice(some_keys)))[: generator.randint(2, 6)]
        values = generator.sample(pool, len(keys))
        table = dict(zip(keys, values, strict=True))
        return Task(draw=lambda inner: inner.choice(list(table.items())))

    return family


def _mapped(table: Mapping[str, str]) -> Family:
    def family(generator: random.Random) -> Task:
        pairs = list(table.items())
        if generator.random() < 0.3 and len(set(table.values())) == len(table):
            pairs = [(value, key) for key, value in pairs]
        return Task(draw=lambda inner: inner.choice(pairs))

    return family


def _on_words(change: Callable[[list[str]], Sequence[str]]) -> Family:
    """A rule on a short list of words, numbers or letters."""
    pool = [word for topic in words.TOPICS.values() for word in topic]

    def family(generator: random.Random) -> Task:
        glue = generator.choice((" ", ", ", " - ", "; "))
        kind = generator.randrange(3)
        longest = generator.randint(2, 5)

        def draw(inner: random.Random) -> Row:
            count = inner.randint(2, longest)
            if kind == 0:
                items = inner.sample(pool, count)
            elif kind == 1:
                items = [str(inner.randrange(10)) for _ in range(count)]
            else:
                items = inner.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", count)
            return glue.join(items), glue.join(change(items))

        return Task(draw=draw)

    return family


def _arithmetic(generator: random.Random) -> Task:
    sign = generator.choice("+-*")
    most = 10 if sign == "*" else generator.choice((10, 50))
    glue = generator.choice((" ", ""))
    in_words = generator.random() < 0.2

    def draw(inner: random.Random) -> Row:
        a, b = inner.randrange(most), inner.randrange(most)
        if sign == "-" and a < b:
            a, b = b, a
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        answer = words.number_in_words(result) if in_words and result < 100 else str(result)
        return f"{a}{glue}{sign}{glue}{b}", answer

    return Task(draw=draw)


def _number_words(generator: random.Random) -> Task:
    back = generator.random() < 0.5

    def draw(inner: random.Random) -> Row:
        number = inner.randrange(100)
        pair = str(number), words.number_in_words(number)
        return (pair[1], pair[0]) if back else pair

    return Task(draw=draw)


def _units(generator: random.Random) -> Task:
    def draw(inner: random.Random) -> Row:
        short, long = inner.choice(list(words.UNITS.items()))
        number = inner.randrange(2, 100)
        return f"{number} {short}", f"{number} {long}"

    return Task(draw=draw)


def _next_in_order(generator: random.Random) -> Task:
    order = generator.choice(words.ORDERED)
    step = generator.choice((1, 1, -1))

    def draw(inner: random.Random) -> Row:
        at = inner.randrange(len(order))
        return order[at], order[(at + step) % len(order)]

    return Task(draw=draw)


def _table(generator: random.Random) -> Task:
    """A row of a table becomes a sentence, or a sentence gives back one of its cells."""
    topics = {**words.TOPICS, "place": words.TOPICS["country"]}
    frame = generator.choice(
        (
            "{name} is {age} years old and lives in {place}.",
            "{name}, a {job}, comes from {place}.",
            "In {place} lives {name}, who is a {job}.",
            "{name} has a {colour} {vehicle}.",
            "The {job} {name} is {age}.",
            "{name} bought {age} {fruit}s in {place}.",
        )
    )
    slots = re.findall(r"\{(\w+)\}", frame)
    extracted = generator.choice(slots)
    forward = generator.random() < 0.5
    colon, glue = generator.choice((": ", " = ", "[")), generator.choice((", ", " | ", "\n", "; "))

    def draw(inner: random.Random) -> Row:
        cells = {
            slot: str(inner.randrange(2, 99)) if slot == "age" else inner.choice(topics[slot])
            for slot in slots
        }
        sentence = frame.format(**cells)
        if not forward:
            return sentence, cells[extracted]
        close = "]" if colon == "[" else ""
        return glue.join(f"{slot}{colon}{cell}{close}" for slot, cell in cells.items()), sentence

    return Task(draw=draw)


def _which_topic_word(generator: random.Random) -> Task:
    """Find the word of one topic among others."""
    wanted, *others = generator.sample(sorted(words.TOPICS), 4)

    def draw(inner: random.Random) -> Row:
        found = inner.choice(words.TOPICS[wanted])
        some = [inner.choice(words.TOPICS[name]) for name in others[: inner.randint(1, 3)]]
        some.append(found)
        inner.shuffle(some)
        return ", ".join(some), found

    return Task(draw=draw)


def invented_word(generator: random.Random) -> str:
    """Make up a word that means nothing.

    Args:
        generator: the source of chance.

    Returns:
        Two or three syllables.
    """
    return "".join(generator.choice(words.SYLLABLES) for _ in range(generator.randint(2, 3)))


def training_families(pools: Pools) -> dict[str, tuple[float, Family]]:
    """List the families that training episodes are drawn from.

    Args:
        pools: the real texts.

    Returns:
        Weight and family by name; the weights need not add up to one.
    """
    intents = [_some_of(table, 6) for table in pools.intents]
    families: dict[str, tuple[float, Family]] = {
        "intents": (5.0, lambda generator: generator.choice(intents)(generator)),
        "sources": (3.0, _some_of(pools.sentences, 4)),
        "question sets": (1.0, _some_of(pools.questions, 4)),
        "with a word": (3.0, _with_word(pools)),
        "feelings": (4.0, _feelings(pools)),
        "topics": (4.0, _topics),
        "long or short": (0.5, _split_by(pools, "long", lambda sentence: len(sentence) > 80)),
        "speech": (0.5, _split_by(pools, "speech", lambda sentence: '"' in sentence)),
        "digits": (0.5, _split_by(pools, "digits", lambda s: any(c.isdigit() for c in s))),
        "capitals": (0.5, _loud(pools)),
        "first word": (1.0, _first_word),
        "odd word": (2.0, _contains_marker),
        "even or odd": (0.3, _even_or_odd),
        "look up": (5.0, _look_up(pools)),
        "copy": (0.5, _on_words(lambda items: items)),
        "reverse": (0.5, _on_words(lambda items: items[::-1])),
        "sort": (0.5, _on_words(sorted)),
        "first": (0.4, _on_words(lambda items: items[:1])),
        "last": (0.4, _on_words(lambda items: items[-1:])),
        "without the first": (0.4, _on_words(lambda items: items[1:])),
        "count": (0.4, _on_words(lambda items: [str(len(items))])),
        "arithmetic": (1.0, _arithmetic),
        "number words": (0.5, _number_words),
        "units": (0.4, _units),
        "next": (0.4, _next_in_order),
        "opposites": (0.4, _mapped(words.OPPOSITES)),
        "plurals": (0.3, _mapped(words.PLURALS)),
        "past": (0.3, _mapped(words.PASTS)),
        "table": (2.0, _table),
        "word of a topic": (0.8, _which_topic_word),
    }
    return {name: pair for name, pair in families.items() if _can_draw(pair[1])}


def _can_draw(family: Family) -> bool:
    """Whether a family finds enough in the pools: two classes at least, none of them empty."""
    generator = random.Random(0)  # noqa: S311 - a look, nothing drawn from it is kept
    try:
        task = family(generator)
        texts = [draw(generator) for draw in task.classes]
    except IndexError:  # a choice from nothing
        return False
    return task.draw is not None or len(texts) > 1


# What follows is never trained on.

# Label words of the held-out families; `episodes.py` gives them to no training episode.
HELD_OUT_LABELS = (
    "maple", "copper", "velvet", "marble", "ribbon", "saddle", "candle", "basket", "pocket",
    "cotton", "lantern", "feather", "pillow", "mirror", "blanket", "barrel",
)  # fmt: skip


def _invented_languages(generator: random.Random) -> list[Draw]:
    languages = generator.sample(words.HELD_OUT_SYLLABLES, generator.choice((2, 3)))

    def speaking(syllables: Sequence[str]) -> Draw:
        def draw(inner: random.Random) -> str:
            return " ".join(
                "".join(inner.choice(syllables) for _ in range(inner.randint(1, 2)))
                for _ in range(inner.randint(2, 4))
            )

        return draw

    return [speaking(syllables) for syllables in languages]


def _end_marks(generator: random.Random) -> list[Draw]:
    pool = [word for topic in words.TOPICS.values() for word in topic]

    def ending(mark: str) -> Draw:
        return lambda inner: " ".join(inner.sample(pool, inner.randint(3, 6))) + mark

    return [ending(mark) for mark in generator.sample(("?", "!", ".", "..."), 2)]


def _number_lengths(generator: random.Random) -> list[Draw]:
    frame = generator.choice(("{}", "The number is {}.", "{} in all"))
    return [
        lambda inner: frame.format(inner.randrange(1, 100)),
        lambda inner: frame.format(inner.randrange(10_000, 1_000_000)),
    ]


def _persons(_: random.Random) -> list[Draw]:
    deeds = [f"{past} the {thing}" for past in words.PASTS.values() for thing in words.THINGS]

    def by(*persons: str) -> Draw:
        return lambda inner: f"{inner.choice(persons)} {inner.choice(deeds)}."

    return [by("I", "We", "My brother and I"), by("He", "She", "They", "The man")]


def _code_shapes(generator: random.Random) -> list[Draw]:
    def letters(inner: random.Random) -> str:
        return "".join(inner.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2))

    def digits(inner: random.Random) -> str:
        return str(inner.randrange(100, 1000))

    shapes: list[Draw] = [
        lambda inner: f"{letters(inner)}-{digits(inner)}",
        lambda inner: f"{digits(inner)}/{letters(inner)}",
        lambda inner: f"{digits(inner)}.{digits(inner)}",
    ]
    return generator.sample(shapes, generator.choice((2, 3)))


def _held_out_topics(generator: random.Random) -> list[Draw]:
    return list(_topics(generator, words.HELD_OUT_TOPICS).classes)


def _rows_of(classes: Callable[[random.Random], list[Draw]]) -> Callable[..., list[Row]]:
    def draw_rows(generator: random.Random, num_rows: int) -> list[Row]:
        draws = classes(generator)
        labels = generator.sample(HELD_OUT_LABELS, len(draws))
        rows = [(draws[n % len(draws)](generator), labels[n % len(draws)]) for n in range(num_rows)]
        generator.shuffle(rows)
        return rows

    return draw_rows


HELD_OUT_FAMILIES: dict[str, Callable[[random.Random, int], list[Row]]] = {
    "invented languages": _rows_of(_invented_languages),
    "end marks": _rows_of(_end_marks),
    "number lengths": _rows_of(_number_lengths),
    "persons": _rows_of(_persons),
    "code shapes": _rows_of(_code_shapes),
    "held-out topics": _rows_of(_held_out_topics),
}
