"""Turns what goes wrong in a handler into a toast with a remedy and a reference number."""

import functools
import inspect
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.screen import out_of_memory
from studio.web.html import visible
from templates.errors import StudioError

_MOST_CHARACTERS = 600
_SECONDS = 20.0
_MINUTE = 60.0


class Toasts:
    """Guards handlers; keeps what happened in a log beside the person's data."""

    def __init__(self, folder: Path) -> None:
        """Say where the log is.

        Args:
            folder: gets `page.log`, where tracebacks of mistakes of ours go.
        """
        self._log = logging.getLogger(f"{__name__}.{id(self)}")
        self._log.propagate = False
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "page.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._log.addHandler(handler)
        self._told_at: dict[str, float] = {}

    def guarded(
        self, handler: Callable[..., Any], *, is_repeated: bool = False
    ) -> Callable[..., Any]:
        """Make a handler show what goes wrong, and leave the page as it is then.

        Args:
            handler: a function or a generator function.
            is_repeated: whether a clock calls it: the same message is shown once a minute then.

        Returns:
            The handler to give to an event.
        """
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
                try:
                    yield from handler(*args, **kwargs)
                except Exception as error:
                    self._tell(error, is_repeated)
                    yield gr.skip()

            return streaming

        @functools.wraps(handler)
        def plain(*args: Any, **kwargs: Any) -> Any:
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                self._tell(error, is_repeated)
                return gr.skip()

        return plain

    def _tell(self, error: Exception, is_repeated: bool) -> None:
        now, sentence = time.monotonic(), str(error)
        if is_repeated and now - self._told_at.get(sentence, -_MINUTE) < _MINUTE:
            return
        self._told_at[sentence] = now
        self.show(error)

    def show(self, error: Exception) -> None:
        """Show what went wrong as a toast, and write it down.

        Args:
            error: foreseen or not.
        """
        reference = f"{time.strftime('%y%m%d-%H%M')}-{secrets.token_hex(2)}"
        sentence = error if isinstance(error, StudioError) else out_of_memory(error)
        if sentence is None:
            self._log.error("%s %s", reference, traceback.format_exc())
            sentence = StudioError(
                "The studio made a mistake that it did not foresee",
                fix=f"Try again; if it stays, report it with the lines of page.log at {reference}",
            )
        else:
            self._log.warning("%s %s", reference, sentence)
        place = _cut(sentence.where)
        where = Markup(" <small>({})</small>").format(place) if place else ""
        message = Markup("<strong>{}</strong>{}<br>{}<br><small>Reference {}</small>").format(
            _cut(sentence.what), where, _cut(sentence.fix), reference
        )
        gr.Warning(str(message), title="That did not work", duration=_SECONDS)


def told(text: str, title: str = "Done") -> None:
    """Show good news as a toast.

    Args:
        text: the news.
        title: above it.
    """
    gr.Success(str(Markup("{}").format(_cut(text))), title=title, duration=6)


def _cut(text: str) -> str:
    return visible(text, _MOST_CHARACTERS)
