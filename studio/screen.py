"""What a terminal shows: tables and sentences on stdout, progress and errors on stderr."""

import functools
import json
import secrets
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.liveness import is_out_of_memory, memory_ran_out
from studio.settings import studio_home
from templates.errors import StudioError

P = ParamSpec("P")
R = TypeVar("R")
Tick = Callable[[float, str], None]
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Make a command end in one sentence and a non-zero exit where it fails.

    Args:
        function: the command; its `json` argument, where true, asks for JSON errors.

    Returns:
        The guarded command.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json = bool(kwargs.get("json"))
        try:
            return function(*args, **kwargs)
        except StudioError as error:
            _say_error(error.what, error.where, error.fix, as_json)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _say_error("Stopped", "", "Run the verb again to go on", as_json)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # nobody should read a traceback; it is kept for a bug report
            foreseen = out_of_memory(error)
            if foreseen:
                _say_error(foreseen.what, foreseen.where, foreseen.fix, as_json)
                raise typer.Exit(1) from None
            log = _keep_traceback()
            _say_error(
                "The studio made a mistake that it did not foresee", type(error).__name__,
                f"Report it with the file {log}" if log else "Report it with what you did",
                as_json,
            )  # fmt: skip
            raise typer.Exit(70) from None

    return guarded


def out_of_memory(error: Exception) -> StudioError | None:
    """Recognise that memory ran out, whichever library says so.

    Args:
        error: what was raised.

    Returns:
        The sentence, or None where it is something else.
    """
    if not is_out_of_memory(error):
        return None
    sentence = memory_ran_out()
    return StudioError(sentence.what, fix=sentence.fix)


def _keep_traceback() -> Path | None:
    """Write the traceback where a bug report can find it; None where that is not possible."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    log = studio_home() / f"error-{stamp}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        return None
    return log


def say(text: str) -> None:
    """Print one line of result.

    Args:
        text: plain text; brackets in it are not markup.
    """
    out.print(Text(visible(text)))


def visible(text: str) -> str:
    """Write control and direction characters out, so that data cannot steer the terminal.

    Args:
        text: anything from a table or a model.

    Returns:
        The text, line breaks kept.
    """
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf")
        else f"\\x{ord(char):02x}"
        for char in text
    )  # fmt: skip


def say_json(content: Any) -> None:
    """Print the whole result as JSON.

    Args:
        content: JSON-ready values.
    """
    typer.echo(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2))


def say_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = ""
) -> None:
    """Print a table; columns after the first that hold numbers stand to the right.

    Args:
        title: above the table.
        columns: headings.
        rows: cells, as shown.
        note: below the table.
    """
    table = Table(title=Text(title), title_justify="left", caption=note or None)
    table.caption_justify = "left"
    for position, column in enumerate(columns):
        numeric = position > 0 and all(row[position][:1] in "+-0123456789–" for row in rows)
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=not position
        )
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    out.print(table, soft_wrap=False)


@contextmanager
def progress(title: str) -> Iterator[Tick]:
    """Show a bar for work of more than a second.

    Args:
        title: what is being done.

    Yields:
        A function to call with the share done (0 to 1) and a few words.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=1.0, words="")

        def tick(share: float, words: str = "") -> None:
            bar.update(task, completed=share, words=words)

        yield tick


def _say_error(what: str, where: str, fix: str, as_json: bool) -> None:
    if as_json:
        content = {"error": {"what": what, "where": where, "fix": fix}}
        typer.echo(json.dumps(content, ensure_ascii=False), err=True)
        return
    place = f" ({where})" if where else ""
    err.print(Text(f"{what}{place}. {fix}.", style="red"))
