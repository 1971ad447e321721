"""The page as a whole, without a browser."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from studio.home import Home
from studio.server import Server
from studio.wizard import build_wizard


def test_no_tab_holds_a_connection(tmp_path: Path) -> None:
    """A browser has six for one address: where each tab holds one, the seventh tab stays empty."""

    async def built() -> dict[str, Any]:  # Gradio asks for a loop, and leaves one of its own open
        return dict(build_wizard(Server(Home(tmp_path))).get_config_file())

    with ThreadPoolExecutor(1) as pool:  # where a browser is tested too, this thread has a loop
        config = pool.submit(asyncio.run, built()).result()
    assert config["connect_heartbeat"] is False
