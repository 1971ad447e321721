"""axe-core, the usual judge of accessibility, asked about the page as it stands."""

import sys
from pathlib import Path

from playwright.sync_api import Page

AXE = Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"
_GRAVE = ("serious", "critical")
_ASK = "() => axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"


def grave_violations(page: Page) -> list[str]:
    """Each as: which rule, what is wrong, where; none where axe-core could not be installed."""
    if not AXE.is_file():
        return []
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return [
        f"{found['id']}: {found['help']}: {node['html'][:300]}"
        for found in page.evaluate(_ASK)
        if found["impact"] in _GRAVE
        for node in found["nodes"]
    ]
