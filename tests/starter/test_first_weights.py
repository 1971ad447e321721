import torch
from transformers import LlamaForCausalLM

from starter.first_weights import circuit_weights, new_model
from starter.recipe import read_recipe

ENTRIES, SEPARATOR = 500, 499


def make(seed: int) -> LlamaForCausalLM:
    return new_model(read_recipe().model, ENTRIES, seed, separator_id=SEPARATOR).eval()


def attentions(repeats: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Ids of a random text said again, what is predicted, and who looks where, by layer."""
    model = make(seed=3)
    model.set_attn_implementation("eager")
    text = torch.randint(1, SEPARATOR, (1, 40), generator=torch.Generator().manual_seed(0))
    ids = text.repeat(1, repeats)
    with torch.inference_mode():
        output = model(ids, output_attentions=True)
    return ids[0], output.logits[0], [layer[0] for layer in output.attentions]


def solved_items(draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Six texts of six tokens, each with its label, and a text much like one of them; its place."""
    texts = torch.randint(1, 400, (6, 6), generator=draw)
    labels = torch.randperm(80, generator=draw)[:6] + 400
    place = int(torch.randint(0, 6, (1,), generator=draw))
    alike = texts[place][torch.randperm(6, generator=draw)]
    alike[:2] = torch.randint(1, 400, (2,), generator=draw)
    shown = [
        torch.cat([text, torch.tensor([SEPARATOR, int(label), 0])])
        for text, label in zip(texts, labels, strict=True)
    ]
    return torch.cat([*shown, alike, torch.tensor([SEPARATOR])]), labels, place


def test_the_first_heads_look_a_fixed_number_of_tokens_back() -> None:
    _, _, (first, *_) = attentions()
    for distance in (1, 2, 3):
        looks = first[distance - 1].diagonal(-distance)
        assert float(looks[5:].min()) > 0.8


def test_other_heads_of_the_first_layer_mix_the_last_tokens_near_and_far() -> None:
    _, _, (first, *_) = attentions()
    near, middle, far = first[-3:, 79]
    assert float(near[70:].sum()) > 0.6 and float(near.max()) < 0.5
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


def test_a_label_is_repeated_whose_text_is_most_alike() -> None:
    model, draw = make(seed=3), torch.Generator().manual_seed(1)
    shown, right = 0.0, 0.0
    for _ in range(20):
        ids, labels, place = solved_items(draw)
        with torch.inference_mode():
            scores = model(ids[None]).logits[0, -1].softmax(dim=-1)
        shown += float(scores[labels].sum()) / 20
        right += float(scores[labels].argmax() == place) / 20
    assert shown > 0.4, "one of the labels follows a separator"
    assert right > 0.4, "chance is a sixth"


def test_the_circuit_is_the_attention_of_three_layers() -> None:
    names = circuit_weights(make(seed=1))
    assert len(names) == 3 * 4
    assert {name.rpartition("self_attn.")[0] for name in names} == {
        f"model.layers.{number}." for number in range(3)
    }


def test_equal_seeds_give_equal_weights() -> None:
    first, second, other = (make(seed=number) for number in (1, 1, 2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
