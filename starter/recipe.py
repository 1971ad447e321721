"""The recipe of the starter model: `recipe.yaml` as frozen, checked values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml

from engine.plan import Schedule
from templates.errors import PlanError
from templates.files import canonical_json, sha256_of_bytes
from templates.values import Value, parse

RECIPE = Path(__file__).parent / "recipe.yaml"


class TokenizerRecipe(Value):
    """A byte-level BPE; `sample_chars` of the longest stage's mix to learn it from."""

    num_entries: int
    sample_chars: int


class ModelRecipe(Value):
    """The shape of the Llama, in the names of its config."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int


class MuonRecipe(Value):
    """Rates as multiples of Muon's, which is the schedule's.

    Attributes:
        adamw_rate_ratio: of embedding and norms, which learn by AdamW.
        circuit_rate_ratio: of the attention that starts as a circuit (`first_weights.py`).
    """

    adamw_rate_ratio: float
    circuit_rate_ratio: float


class Stage(Value):
    """One run of the trainer over rows of one length.

    Attributes:
        name: of its folder.
        row_tokens: T, the length of a row.
        num_tokens: in all rows together.
        most_episode_chars: about how long an episode may get.
        mix: share of the characters by source.
        families: how often each family of tasks is drawn, against the others; default all of them
            at the weights of `families.py`.
        schedule: as for every run of the trainer.
    """

    name: str
    row_tokens: int
    num_tokens: int
    most_episode_chars: int
    mix: Mapping[str, float]
    families: Mapping[str, float] = {}
    schedule: Schedule

    @property
    def num_rows(self) -> int:
        """Rows to train on."""
        return self.num_tokens // self.row_tokens


class Recipe(Value):
    """Everything that decides the weights, but for the texts and the machine.

    Attributes:
        seed: of every draw.
        precision: of the products; the weights are learned in fp32 either way.
        tokenizer: how it is made.
        model: shape.
        muon: rates of the optimizer.
        stages: one after the other.
    """

    seed: int
    precision: Literal["fp32", "bf16"] = "bf16"
    tokenizer: TokenizerRecipe
    model: ModelRecipe
    muon: MuonRecipe
    stages: tuple[Stage, ...]

    @property
    def digest(self) -> str:
        """A hash over the whole recipe."""
        return sha256_of_bytes(canonical_json(self.model_dump(mode="json")).encode())


def read_recipe(path: Path = RECIPE) -> Recipe:
    """Read a recipe.

    Args:
        path: the file.

    Returns:
        The recipe.

    Raises:
        PlanError: a setting is missing or wrong.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return parse(Recipe, content, where=path.name, error=PlanError)
