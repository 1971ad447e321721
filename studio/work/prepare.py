"""Upload to dataset; and how the model will read the first examples."""

from data_prep.prepare import prepare
from data_prep.recipe import PrepRecipe
from engine.base_model import load_reader, locate_base
from engine.planning.preview import preview, token_lengths
from studio.jobs.context import Context
from studio.jobs.requests import PrepareRequest
from studio.records import PREPARED, Prepared
from templates.dataset import read_split
from templates.errors import DataError
from templates.files import write_atomically
from templates.values import parse


def run(request: PrepareRequest, context: Context) -> tuple[str, ...]:
    """Clean, check and split an upload.

    Args:
        request: upload and recipe.
        context: where to work.

    Returns:
        The file that names the dataset.
    """
    home = context.home
    recipe = parse(PrepRecipe, request.recipe, where=context.job.id, error=DataError)
    context.progress(0.0, "opening the tokenizer")
    reader = load_reader(locate_base(request.base))
    dataset = prepare(
        home.find("upload", request.upload_id),
        recipe,
        home.place("dataset"),
        tokenise=reader.encode,
        progress=context.progress,
    )
    examples = read_split(home.place("dataset") / dataset.id, "train")
    prepared = Prepared(
        dataset_id=dataset.id,
        lengths=token_lengths(reader, examples, dataset.template),
        preview=tuple(preview(reader, examples, dataset.template, count=request.preview)),
    )
    write_atomically(context.job.folder / PREPARED, prepared.model_dump_json(indent=2))
    return (PREPARED,)
