import torch

from starter.first_weights import new_model
from starter.recipe import read_recipe

ENTRIES = 500


def attentions(repeats: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Ids of a random text said again, what is predicted, and who looks where, by layer."""
    model = new_model(read_recipe().model, ENTRIES, seed=3).eval()
    model.set_attn_implementation("eager")
    text = torch.randint(1, ENTRIES, (1, 40), generator=torch.Generator().manual_seed(0))
    ids = text.repeat(1, repeats)
    with torch.inference_mode():
        output = model(ids, output_attentions=True)
    return ids[0], output.logits[0], [layer[0] for layer in output.attentions]


def test_the_first_heads_look_a_fixed_number_of_tokens_back() -> None:
    _, _, (first, *_) = attentions()
    for distance in (1, 2, 3):
        looks = first[distance - 1].diagonal(-distance)
        assert float(looks[5:].min()) > 0.8


def test_other_heads_of_the_first_layer_mix_the_last_tokens_near_and_far() -> None:
    _, _, (first, *_) = attentions()
    near, middle, far = first[-3:, 79]
    assert float(near[70:].sum()) > 0.6 and float(near.max()) < 0.4
    assert float(middle[50:].sum()) > 0.8 and float(middle.max()) < 0.2
    assert float(far.max()) < 0.1 and float(far[:40].sum()) > 0.1


def test_the_second_layer_finds_what_followed_the_same_token_and_repeats_it() -> None:
    ids, logits, (_, second, *_) = attentions()
    places = torch.arange(45, 79)
    found = second[0, places, places - 39]  # behind the same token, one text before
    assert float(found.median()) > 0.2
    wanted = ids[places + 1]
    ranks = (logits[places] > logits[places].gather(1, wanted[:, None])).sum(dim=1)
    assert float(ranks.float().median()) < ENTRIES / 20
    _, alone, _ = attentions(1)
    guess = (alone[:-1] > alone[:-1].gather(1, ids[1:40, None])).sum(dim=1)
    assert float(guess.float().median()) > ENTRIES / 5


def test_equal_seeds_give_equal_weights() -> None:
    first, second, other = (new_model(read_recipe().model, ENTRIES, seed=n) for n in (1, 1, 2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
