"""A button that makes a file when it is pressed, and hands it to the browser."""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from gradio.components import Component

from studio.pages.page import Shell, hidden_field
from studio.projects import Project
from templates.files import disk_errors, write_atomically

_SAVE = """(path) => {
    if (!path) return;
    const link = document.createElement("a");
    link.href = "gradio_api/file=" + path.split("/").map(encodeURIComponent).join("/");
    link.download = path.split("/").pop();
    link.click();
}"""


def download_button(
    shell: Shell,
    label: str,
    make: Callable[..., tuple[str, str]],
    inputs: Sequence[Component] = (),
) -> gr.Button:
    """Place a button that downloads.

    Args:
        shell: what the wizard gives.
        label: on the button.
        make: from the open project and the values of the inputs to the file's name and content.
        inputs: whose values it gets.

    Returns:
        The button.
    """
    button = gr.Button(label, size="sm", elem_classes="ts-small-button")
    path = hidden_field()

    def written(project: Project, *values: object) -> str:
        name, content = make(project, *values)
        return str(offer(shell.server.downloads, name, content))

    shell.on(button.click, written, inputs, [path], busy=button)
    # Each file has a folder of its own, so pressing again is a change too.
    save_on_change(path)
    return button


def save_on_change(path: gr.Textbox) -> None:
    """Let the browser save each file whose path a hidden field is told.

    Args:
        path: the field; a handler returns a path below the downloads into it.
    """
    path.change(None, path, None, js=_SAVE, api_visibility="private")


def offer_file(downloads: Path, source: Path) -> Path:
    """Put a file where the browser may fetch it, without a second copy where the disk can do so.

    Args:
        downloads: the only folder that is served.
        source: the file.

    Returns:
        Its path, in a new folder that nobody can guess.
    """
    path = new_place(downloads) / source.name
    with disk_errors("the download"):
        try:
            os.link(source, path)
        except OSError:  # another disk, or one without such links
            shutil.copyfile(source, path)
    return path


def offer(downloads: Path, name: str, content: str) -> Path:
    """Write a file where the browser may fetch it.

    Args:
        downloads: the only folder that is served.
        name: of the file.
        content: of the file.

    Returns:
        Its path, in a new folder that nobody can guess.
    """
    path = new_place(downloads) / name
    write_atomically(path, content)
    return path


def new_place(downloads: Path) -> Path:
    """Make a folder that nobody can guess.

    Args:
        downloads: the only folder that is served.

    Returns:
        The new folder.
    """
    folder = downloads / secrets.token_urlsafe(16)
    with disk_errors("the download"):
        folder.mkdir(parents=True)
    return folder
