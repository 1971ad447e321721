"""Charts as a file of their own: one HTML page that needs nothing else and opens anywhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from studio.web.html import join
from templates.files import canonical_json, write_atomically

_STYLE = Path(__file__).with_name("style.css")
# What the page has from its theme.
_PAPER = """
:root { --neutral-100: #f4f4f5; --neutral-200: #e4e4e7; --neutral-600: #52525b;
  --neutral-700: #3f3f46; --neutral-900: #18181b; --primary-600: #0d766e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 24px auto; padding: 0 16px;
  color: var(--neutral-900); background: white; }
"""


def write_pictures(
    path: Path, title: str, parts: Sequence[Markup], found: Mapping[str, Any]
) -> None:
    """Write what was found, as the name of the file asks for it.

    Args:
        path: ends in .html for pictures; else it will be JSON.
        title: above the pictures.
        parts: charts and tables.
        found: all that they show.
    """
    is_page = path.suffix.lower() in (".html", ".htm")
    text = _page(title, parts) if is_page else canonical_json(found, indent=1) + "\n"
    write_atomically(path, text)


def _page(title: str, parts: Sequence[Markup]) -> str:
    style = Markup(_PAPER + _STYLE.read_text(encoding="utf-8"))  # noqa: S704 - our own files
    return str(
        Markup(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title>'
            "<style>{1}</style><body><h1>{0}</h1>{2}</body></html>\n"
        ).format(title, style, join(parts))
    )
