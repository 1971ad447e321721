"""What a job of each kind is asked to do. Ids, not paths; free of torch."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from engine.jobs import Job, JobKind
from engine.plan import TrainPlan
from engine.publishing.publication import Form
from templates.errors import RunError
from templates.values import Value, parse

DEVICE = "cpu"  # models are computed there; each further device will be a lane of its own
TABLE = "table"  # the file that a predict job brings along, and a download job leaves


class Tracker(StrEnum):
    """Where metrics go beside metrics.csv."""

    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"


class PrepareRequest(Value):
    """Turn an upload into a dataset."""

    upload_id: str
    recipe: dict[str, Any] = Field(description="A whole PrepRecipe.")
    base: str = Field(default="starter", description="Its tokenizer checks the data.")
    preview: int = Field(default=2, ge=0, le=100, description="Examples to show as they are read.")


class TrainRequest(Value):
    """Run a plan."""

    plan: TrainPlan
    estimated_peak_bytes: int = Field(default=0, ge=0, description="0: nobody estimated it.")
    memory_available_bytes: int = Field(default=0, ge=0, description="When it was estimated.")
    num_samples: int = Field(
        default=3, ge=0, le=10, description="Validation examples to answer as it learns."
    )
    trackers: tuple[Tracker, ...] = Field(default=(), description="Beside metrics.csv.")
    sweep_id: str = Field(
        default="",
        pattern=r"^(sweep-[0-9a-z-]+)?$",
        description="The sweep that this run belongs to.",
    )


class CompareRequest(Value):
    """Measure a tuned model against prompting."""

    run_id: str
    seed: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=0, ge=0, description="0: a little more than in training.")


class PredictRequest(Value):
    """Answer the rows of the table that lies in the job's folder."""

    run_id: str
    table_name: str = Field(description="What the person calls it; its ending tells the format.")
    form: Literal["jsonl", "csv"] = "jsonl"
    max_new_tokens: int = Field(default=0, ge=0, description="0: as it was measured.")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0: the likeliest token.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Fixes the draws of a temperature.")
    beams: int = Field(default=1, ge=1, le=64, description="Answers followed at once.")


class PublishRequest(Value):
    """Write a tuned model as a folder others can load, and perhaps send it to the Hub."""

    run_id: str
    form: Form | None = None
    name: str
    to: str = Field(default="", description="Absolute new folder; empty: `model` in the job's own.")
    zipped: bool = False
    publication_id: str = Field(
        default="",
        pattern=r"^(publish-[0-9a-z-]+)?$",
        description="Send what this publish job wrote, instead of writing it anew.",
    )
    repo_id: str = Field(default="", description="Such as user/name; empty: not to the Hub.")
    private: bool = Field(default=True, description="Whether only its owner may see it there.")
    acknowledged: tuple[str, ...] = Field(
        default=(), description="Ids of findings that may be published all the same."
    )


class FetchRequest(Value):
    """Bring a base model from the Hub onto this machine."""

    base: str
    revision: str = ""


class DownloadRequest(Value):
    """Bring a table of a Hub data set into the job's folder, as the file `table`."""

    data_set: str = Field(description="Such as owner/name.")
    configuration: str = Field(default="", description="Empty: the first one.")
    split: str = Field(default="", description="Empty: the one to train with.")
    revision: str = Field(default="", description="Branch, tag or commit; empty: the newest.")


Request = (
    PrepareRequest
    | TrainRequest
    | CompareRequest
    | PredictRequest
    | PublishRequest
    | FetchRequest
    | DownloadRequest
)
REQUESTS: dict[JobKind, type[Request]] = {
    "prepare": PrepareRequest,
    "train": TrainRequest,
    "compare": CompareRequest,
    "predict": PredictRequest,
    "publish": PublishRequest,
    "fetch": FetchRequest,
    "download": DownloadRequest,
}


def read_request(job: Job) -> Request:
    """Read what a job was asked to do.

    Args:
        job: its folder.

    Returns:
        The request of the job's kind.

    Raises:
        RunError: there is no such job, or its request is not one of this studio.
    """
    kind = job.kind
    return parse(REQUESTS[kind], job.request(kind), where=job.id, error=RunError)


def lane_of(request: Request) -> str:
    """Say what a job needs for itself: one job at a time runs in each lane.

    Args:
        request: any of them.

    Returns:
        "cpu" for whatever computes with a model, "data" for tables, "network" for the Hub.
    """
    if isinstance(request, PrepareRequest):
        return "data"
    only_sends = isinstance(request, PublishRequest) and request.publication_id
    is_online = only_sends or isinstance(request, FetchRequest | DownloadRequest)
    return "network" if is_online else DEVICE


def kind_of(request: Request) -> JobKind:
    """Say which kind of job a request asks for.

    Args:
        request: any of them.

    Returns:
        The kind.
    """
    return next(kind for kind, known in REQUESTS.items() if isinstance(request, known))
