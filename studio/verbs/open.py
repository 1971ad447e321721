"""open: the studio in the browser."""

import os
import socket
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from studio.home import Home
from studio.screen import say
from studio.settings import page_port
from templates.errors import RunError

_MOST_TRIES = 20


def open_page(
    port: Annotated[
        int | None, typer.Option(min=1024, max=65535, help="Where to listen; found if not given.")
    ] = None,
    token: Annotated[
        bool,
        typer.Option(
            help="Ask for the key in the printed address. --no-token lets in every program and "
            "every person with an account on this machine."
        ),
    ] = True,
    browser: Annotated[bool, typer.Option(help="Open a window of the browser.")] = True,
) -> None:
    """Open the studio in the browser; only this machine can reach it. Ctrl-C ends it."""
    import uvicorn  # noqa: PLC0415

    from studio.server import Server  # noqa: PLC0415
    from studio.web.access import KEY_PARAMETER, new_key  # noqa: PLC0415
    from studio.web.application import HOSTS, build_application  # noqa: PLC0415

    with Server(Home()) as server, _listener(port) as listener:
        number = listener.getsockname()[1]
        key = new_key() if token else ""
        application = build_application(server, key=key, port=number)
        address = f"http://{HOSTS[0]}:{number}/" + (f"?{KEY_PARAMETER}={key}" if key else "")
        say(f"The studio is open on {server.home.root}:\n\n    {address}\n")
        if not key:
            say("Without a key: everybody who can use this machine can use the studio.")
        say("Ctrl-C ends the page; what is training goes on.")
        if browser:
            _show(server.home.root / "open-studio.html", address)
        config = uvicorn.Config(
            application, log_level="error", access_log=False, timeout_graceful_shutdown=2
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    say("Ended. See what runs: python app.py jobs list")


def _listener(port: int | None) -> socket.socket:
    """Take the port, or the first free one behind the usual."""
    first = port or page_port()
    last = first if port else first + _MOST_TRIES
    for number in range(first, last + 1):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            listener.bind(("127.0.0.1", number))
            listener.listen()
            return listener
        listener.close()
    raise RunError(
        f"Another program listens on port {first}",
        fix="Give another one: python app.py open --port 7999",
    )


def _show(page: Path, address: str) -> None:
    """Open the browser through a file that only its owner reads.

    Everybody on this machine can read the browser's arguments, and the address holds the key.
    """
    page.unlink(missing_ok=True)
    with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={address}">')
    with suppress(webbrowser.Error):
        threading.Timer(0.5, webbrowser.open, (page.as_uri(),)).start()
