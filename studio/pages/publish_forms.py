"""In which form a model is published: as an adapter or as a whole model."""

import threading
import time
from collections.abc import Mapping

from markupsafe import Markup

from engine.publishing.publication import Form, Publication
from studio.server import Server
from studio.web.choices import Choice, choice_cards
from studio.web.html import badge, join, section
from studio.web.words import size
from templates.errors import StudioError

FORM_TARGET = "publish-form"
_SILENT_SECONDS = 60.0  # until the engine is asked again
TITLES: Mapping[Form, str] = {"adapter": "Adapter", "merged": "Merged model"}
_TEXTS: Mapping[Form, str] = {
    "adapter": "Only what was learned. Small and quick to share; whoever uses it also needs the "
    "base model, and loads both together.",
    "merged": "Base and what was learned, in one. Large, but complete: it loads like any other "
    "model, and Ollama can read it.",
}
_MISSING: Mapping[Form, str] = {
    "adapter": "This method changes the base itself, so there is nothing small to hand on.",
    "merged": "What this method learns lies beside the base and cannot be folded into it.",
}


class KnownForms:
    """Which method can be published in which form. One for a server.

    The engine knows; it takes seconds to start, so it is asked in the background.
    """

    def __init__(self, server: Server) -> None:
        """Begin without knowing.

        Args:
            server: whose engine is asked.
        """
        self._server = server
        self._forms: dict[str, tuple[Form, ...]] = {}
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def of(self, method: str) -> tuple[Form, ...] | None:
        """Look a method up; where nothing is known yet, asking begins.

        Args:
            method: its name.

        Returns:
            Its forms, the usual one first; None: look again in a moment. Where the engine cannot
            be asked, all there are, for a minute: the job itself refuses what cannot be.
        """
        if method in self._forms or time.monotonic() < self._silent_until:
            return self._forms.get(method, tuple(TITLES))
        if self._lock.acquire(blocking=False):
            threading.Thread(target=self._ask, name="forms", daemon=True).start()
        return None

    def _ask(self) -> None:
        try:
            methods = self._server.engine.call("methods")["methods"]
            self._forms |= {name: forms_of(described) for name, described in methods.items()}
        except StudioError:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
        finally:
            self._lock.release()


def forms_of(described: Mapping[str, object]) -> tuple[Form, ...]:
    """Read a method's forms.

    Args:
        described: the engine's words on the method.

    Returns:
        "adapter", "merged" or both.
    """
    told: Mapping[Form, str] = {"adapter": "publishes_adapter", "merged": "publishes_merged"}
    return tuple(form for form, name in told.items() if described.get(name))


def forms_view(
    forms: tuple[Form, ...] | None, chosen: Form | None, made: Mapping[Form, Publication]
) -> Markup:
    """Offer the forms.

    Args:
        forms: that the method has; None: not known yet.
        chosen: the one that is shown below.
        made: what was written, by form.

    Returns:
        A card for each form, also for the one that is not to be had, with the reason.
    """
    head = section("In which form", "You can make both, one after the other.")
    if forms is None:
        wait = Markup('<p class="ts-soft" role="status">{}</p>')
        return join((head, wait.format("One moment: looking up which forms this method has …")))
    choices = [
        Choice(
            value=form,
            title=TITLES[form],
            text=_TEXTS[form],
            badges=(badge("made", "good"),) if form in made else (),
            facts=_facts(made.get(form)),
            problem="" if form in forms else _MISSING[form],
        )
        for form in TITLES
    ]
    cards = choice_cards(choices, chosen or "", target=FORM_TARGET, label="Form")
    return join((head, cards))


def _facts(publication: Publication | None) -> tuple[tuple[str, str], ...]:
    if publication is None:
        return ()
    whole = sum(file.size_bytes for file in publication.files)
    return (("on disk", size(whole)),)
