"""A base model from the Hub onto this machine."""

from engine.base_model import locate_base
from studio.jobs.context import Context
from studio.jobs.requests import FetchRequest
from studio.records import FETCHED
from templates.files import canonical_json, write_atomically


def run(request: FetchRequest, context: Context) -> tuple[str, ...]:
    """Download what is missing, and look at it before any library opens it.

    Args:
        request: which base.
        context: where to tell.

    Returns:
        The file that says which commit it is.
    """
    context.progress(0.0, f"downloading {request.base}")
    base = locate_base(request.base, request.revision, token=context.token)
    content = {"base": base.id, "revision": base.revision, "fingerprint": base.fingerprint}
    write_atomically(context.job.folder / FETCHED, canonical_json(content, indent=2))
    return (FETCHED,)
