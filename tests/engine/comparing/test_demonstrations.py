from dataclasses import replace

from engine.comparing.demonstrations import Candidate, candidates, demonstrations_for
from templates.builtin import TEMPLATES
from tests.engine.tiny import TEMPLATE, TICKETS, ticket

TRAIN = [*TICKETS, replace(ticket("made up", "billing", 1), origin="swap_words")]


def labels_of(shots) -> list[str]:
    return [shot.label for shot in shots]


def test_labels_take_turns():
    for draw in range(5):
        shots = demonstrations_for(Candidate(6, draw), TRAIN, TEMPLATE, seed=0)
        assert sorted(labels_of(shots)[:3]) == sorted(labels_of(shots)[3:])
        assert len(set(labels_of(shots)[:3])) == 3


def test_more_shots_extend_fewer_and_draws_differ():
    four = demonstrations_for(Candidate(4), TRAIN, TEMPLATE, seed=0)
    assert demonstrations_for(Candidate(8), TRAIN, TEMPLATE, seed=0)[:4] == four
    assert demonstrations_for(Candidate(4), TRAIN, TEMPLATE, seed=0) == four
    assert demonstrations_for(Candidate(4, draw=1), TRAIN, TEMPLATE, seed=0) != four
    assert demonstrations_for(Candidate(4), TRAIN, TEMPLATE, seed=1) != four


def test_orders():
    drawn = demonstrations_for(Candidate(4), TRAIN, TEMPLATE, seed=0)
    turned = demonstrations_for(Candidate(4, order="reversed"), TRAIN, TEMPLATE, seed=0)
    assert turned == drawn[::-1]


def test_what_an_augmenter_made_is_never_shown():
    for candidate in candidates(TEMPLATE):
        shots = demonstrations_for(candidate, TRAIN, TEMPLATE, seed=0)
        assert all(shot.origin == "upload" for shot in shots)
        assert len(shots) <= min(candidate.num_shots, len(TICKETS))


def test_short_ones():
    shots = demonstrations_for(Candidate(9, selection="short"), TRAIN, TEMPLATE, seed=0)
    assert len(shots) == 4
    assert max(len(shot.fields["text"]) for shot in shots) <= 19


def test_the_most_typical_stands_last():
    texts = ["parcel parcel late", "parcel late", "parcel late today", "kettle"]
    train = [ticket(text, "shipping", row) for row, text in enumerate(texts, 1)]
    candidate = Candidate(3, selection="typical", order="similar_last")
    shots = demonstrations_for(candidate, train, TEMPLATE, seed=0)
    assert [shot.source_rows for shot in shots][-1] == (2,)
    assert (4,) not in [shot.source_rows for shot in shots]


def test_text_without_words_and_an_empty_split():
    train = [ticket("?", "a", 1), ticket("!", "b", 2)]
    candidate = Candidate(2, selection="typical", order="similar_last")
    assert len(demonstrations_for(candidate, train, TEMPLATE, seed=0)) == 2
    assert demonstrations_for(Candidate(2, selection="short"), [], TEMPLATE, seed=0) == ()


def test_without_a_task_description_there_is_nothing_to_leave_out():
    bare = TEMPLATE.model_copy(update={"instruction": ""})
    assert not any(candidate.instruction for candidate in candidates(bare))
    for template in TEMPLATES.values():
        found = candidates(template)
        assert len(set(found)) == len(found) <= 45
