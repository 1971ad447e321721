"""The web application: Gradio behind the guard, and nothing else but a health check."""

import os
import shutil
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from studio.server import Server
from studio.web.access import Guard
from studio.web.theme import SCRIPT, STYLE, theme
from studio.wizard import build_wizard

HOSTS = ("127.0.0.1", "localhost")
MOST_UPLOAD = "500mb"


def build_application(server: Server, *, key: str, port: int) -> Guard:
    """Build what uvicorn serves.

    Args:
        server: the open home.
        key: of this launch; empty: everybody on this machine may come in.
        port: where it will listen.

    Returns:
        The guarded application.
    """
    files = server.home.root / "page-files"
    empty = files / "empty"
    for folder in (files, server.downloads):  # nobody waits for what an earlier launch left
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (empty, server.downloads):
        folder.mkdir(parents=True)
    # What people upload goes below their own folder. Gradio serves any file below the working
    # folder that a handler names, so that one is empty.
    os.environ["GRADIO_TEMP_DIR"] = str(files)
    os.chdir(empty)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @application.get("/healthz")
    def health() -> dict[str, bool]:
        return {"ok": True}

    gr.mount_gradio_app(
        application,
        build_wizard(server),
        path="/",
        server_name=HOSTS[0],
        server_port=port,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        allowed_paths=[str(server.downloads)],
        blocked_paths=[str(Path.home() / ".ssh"), str(server.home.root / "jobs")],
        max_file_size=MOST_UPLOAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        theme=theme(),
        css=STYLE.read_text(encoding="utf-8"),
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
    )
    return Guard(application, key=key, hosts=HOSTS, port=port)
