"""What is published and what is written beside it, as frozen values. Free of torch."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from engine.comparing.comparison import Comparison
from engine.plan import TrainPlan
from templates.dataset import Split
from templates.template import Template
from templates.values import Value

Form = Literal["adapter", "merged"]
Layout = Literal["raw", "chat template"]
CARD = "README.md"
RECORD = "studio_run.json"
SMALL_SHARE = 0.25  # of what training did to the logits; a merge that did nothing shows all of it


class PublishedFile(Value):
    """One file, so that a receiver can check what arrived."""

    name: str
    size_bytes: int
    sha256: str


class HubCommit(Value):
    """Where a folder is on the Hub."""

    url: str
    repo_id: str
    commit: str = Field(description="The commit at which every file was found as it is here.")
    revision_parent: str = Field(
        description="The commit before; the same one where everything was there already."
    )
    is_new_repo: bool
    private: bool


class Publication(Value):
    """What went where, and the proof that it computes what was measured."""

    form: Form
    folder: str = Field(description="Name of the folder, without its path.")
    files: tuple[PublishedFile, ...]
    parity: float = Field(
        ge=0, description="Largest difference of a logit between the tuned model and what was "
        "read back from the folder."
    )  # fmt: skip
    effect: float = Field(ge=0, description="Largest difference of a logit that training made.")
    archive: PublishedFile | None = Field(default=None, description="The zip beside the folder.")
    hub: HubCommit | None = Field(default=None, description="None: it is on this machine only.")


class PublishedBase(Value):
    """The model underneath."""

    id: str = Field(description='Hub id, "starter", or the name of a folder without its path.')
    revision: str = Field(description="Hub commit; empty for a local folder.")
    fingerprint: str
    licence: str

    @property
    def is_on_hub(self) -> bool:
        """Whether others can fetch it by its id."""
        return bool(self.revision)


class PublishedData(Value):
    """Which rows taught the model; never the rows themselves."""

    id: str
    name: str
    sha256: str
    rows: Mapping[Split, int]


class PromptFormat(Value):
    """How the model must be asked, to the character."""

    template: Template
    labels: tuple[str, ...]
    layout: Layout
    prompt: str = Field(description="The text before the answer, with slots in braces.")
    answer_opening: str = Field(description="Stands between prompt and answer.")
    answer_closing: str = Field(description="Stands after the answer.")
    stop: str = Field(description="The text at which an answer ends.")
    opening_ids: tuple[int, ...] = Field(description="Tokens put before every prompt.")
    max_new_tokens: int = Field(description="Longest training answer and a little more.")


class RunRecord(Value):
    """The studio's own data about a published model: `studio_run.json`."""

    version: Literal[1] = 1
    name: str
    folder: str
    form: Form
    run_id: str
    plan: TrainPlan
    plan_digest: str
    base: PublishedBase
    data: PublishedData
    prompt: PromptFormat
    num_trainable: int
    num_parameters: int
    parity: float
    effect: float
    comparison: Comparison | None
    adapter_servers: tuple[str, ...] = ()
    adapter_rank: int = 0


def parity_sentence(parity: float, effect: float) -> str:
    """Say how near the published model is to the one that was measured.

    Args:
        parity: largest difference of a logit between the two.
        effect: largest difference of a logit that training made.

    Returns:
        One or two sentences.
    """
    text = (
        f"The largest difference of a logit from the model in training was {parity:.2g}; "
        f"training itself had moved one by {effect:.2g}."
    )
    if parity <= SMALL_SHARE * effect:
        return text
    return (
        f"{text} Rounding the weights changed about as much as so weak a training did: the "
        "measured scores may not hold for these files."
    )
