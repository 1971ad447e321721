"""What pages and the wizard have in common.

A page is a function of files: `show` gives what its components hold for a project, and every
handler gets the project as it is now. So a reload, a second tab and the next server show the same.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from gradio.events import Dependency

from studio.projects import Project
from studio.server import Server
from studio.web.toasts import Toasts
from templates.errors import RunError

# Between two looks at long work. Each costs a browser a third of a second of a processor, which
# training on the same machine then lacks.
LOOK_SECONDS = 3.0


@dataclass(frozen=True)
class Page:
    """One step, built.

    Attributes:
        outputs: the components that `show` fills.
        show: from a project to one value or update for each output; called whenever the step is
            opened, so it reads files and is quick.
    """

    outputs: Sequence[Block]
    show: Callable[[Project], Sequence[Any]]


@dataclass
class Shell:
    """What the wizard gives to every page.

    Attributes:
        server: home, line of jobs, engine and data processes.
        toasts: shows what goes wrong.
        project: hidden; holds the id of the open project, in the browser, so that it outlives this
            process.
        step: hidden; a handler that returns a step's name here opens that step.
        head: the components above the steps; filled again after every handler.
        show_head: from a project to one update for each of them.
    """

    server: Server
    toasts: Toasts
    project: gr.Textbox
    step: gr.Textbox
    head: list[Block] = field(default_factory=list)
    show_head: Callable[[Project], list[Any]] = lambda project: []

    def on(
        self,
        trigger: Callable[..., Dependency],
        handler: Callable[..., Any],
        inputs: Sequence[Component] = (),
        outputs: Sequence[Block] = (),
        *,
        busy: Component | None = None,
        **event: Any,
    ) -> Dependency:
        """Connect a handler to an event of a component.

        What the handler raises becomes a toast, and nothing on the page changes then. Afterwards
        the head is filled again, for the handler may have made a step done or stale.

        Args:
            trigger: such as `button.click`.
            handler: gets the open project and the values of the inputs; may be a generator;
                returns one value or update for each output: alone if there is one output.
            inputs: whose values it gets.
            outputs: what it fills.
            busy: where to show that it works, for what may take longer than a blink.
            **event: further settings of the event.

        Returns:
            The event, to chain another.
        """
        shown = list(outputs)

        def with_head(project_id: str, result: Any) -> list[Any]:
            values = list(result) if len(shown) > 1 else [result] if shown else []
            return [*values, *self.show_head(self.server.projects.read(project_id))]

        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def wrapped(project_id: str, *values: Any) -> Iterator[list[Any]]:
                for result in handler(self._read(project_id), *values):
                    yield with_head(project_id, result)

        else:

            @functools.wraps(handler)
            def wrapped(project_id: str, *values: Any) -> list[Any]:
                return with_head(project_id, handler(self._read(project_id), *values))

        progress = {"show_progress": "full", "show_progress_on": busy} if busy is not None else {
            "show_progress": "hidden"
        }  # fmt: skip
        is_tick = getattr(trigger, "event_name", "") == "tick"
        return trigger(
            self.toasts.guarded(wrapped, is_repeated=is_tick),
            [self.project, *inputs],
            [*shown, *self.head],
            **{"api_visibility": "private", **progress, **event},
        )

    def _read(self, project_id: str) -> Project:
        if not project_id:
            raise RunError("No project is open", fix="Open or begin one on the start page")
        return self.server.projects.read(project_id)


def piece(value: object = "", *, visible: bool = True, **settings: Any) -> gr.HTML:
    """Place a piece of HTML without a box of its own.

    Args:
        value: markup.
        visible: whether it is seen at first.
        **settings: of `gr.HTML`.

    Returns:
        The component; give it `str(markup)`.
    """
    classes = ["ts-plain-block", *settings.pop("elem_classes", [])]
    return gr.HTML(str(value), visible=visible, padding=False, elem_classes=classes, **settings)


def hidden_field(elem_id: str | None = None) -> gr.Textbox:
    """Place a text field that only the page itself writes to and listens to.

    Gradio's own `visible="hidden"` does not last: coming back to a step makes it visible.

    Args:
        elem_id: for what writes to it in the browser.

    Returns:
        The field.
    """
    return gr.Textbox(elem_id=elem_id, elem_classes="ts-hidden", show_label=False, container=False)


def hidden_number(elem_id: str | None = None) -> gr.Number:
    """Place a whole number, zero at first, that only the page itself writes to.

    Args:
        elem_id: for what writes to it in the browser.

    Returns:
        The field.
    """
    return gr.Number(
        0, precision=0, elem_id=elem_id, elem_classes="ts-hidden", show_label=False, container=False
    )


def new_text() -> str:
    """Make a text that no field holds yet, so that setting it is a change.

    Returns:
        Digits.
    """
    return str(time.time_ns())
