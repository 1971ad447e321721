"""What the plan step knows between two clicks: answers of the engine, and which bases are offered.

Everything here can be asked again; a new process begins with an empty desk.
"""

import json
import secrets
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bases import BaseCard, find_base, installed_bases, offered_bases, search_hub
from engine.jobs import Job
from engine.plan import TrainPlan, write_plan
from engine.planning.advice import MethodRow, Remedy
from engine.planning.choices import EstimateRequest, MethodsRequest
from engine.planning.estimate import CostEstimate
from studio.jobs.requests import FetchRequest
from studio.journey import plan_of
from studio.pages.drawer import Drawer
from studio.planning import keep_plan, plan_request
from studio.projects import Project
from studio.server import Server
from studio.settings import model_roots
from templates.errors import PlanError, StudioError
from templates.files import disk_errors, write_atomically

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    """What the engine says of a project's choices.

    Attributes:
        plan: made of them; None where they are wrong.
        estimate: of the plan.
        remedies: what would make it fit.
        error: why there is no plan.
    """

    plan: TrainPlan | None = None
    estimate: CostEstimate | None = None
    remedies: tuple[Remedy, ...] = ()
    error: StudioError | None = None


@dataclass(frozen=True)
class Rows:
    """All methods side by side, or why there is no such table."""

    rows: tuple[MethodRow, ...] = ()
    error: StudioError | None = None


class Desk:
    """One for a server."""

    def __init__(self, server: Server) -> None:
        """Begin empty.

        Args:
            server: whose engine is asked.
        """
        self._server = server
        self.trouble: StudioError | None = None  # why the engine could not be asked
        self._described: dict[str, Any] = {}
        self._found: Drawer[BaseCard] = Drawer()
        self._answers: Drawer[Answer] = Drawer()
        self._rows: Drawer[Rows] = Drawer()
        self._edits: Counter[str] = Counter()
        self._installed: list[BaseCard] = []
        self._looked_at = -_LOOK_SECONDS
        self._files: Drawer[tuple[TrainPlan, Path]] = Drawer()

    @property
    def described(self) -> dict[str, Any]:
        """The methods and their forms; empty until somebody asked."""
        return self._described

    def cards(self, project: Project) -> list[BaseCard]:
        """List the bases to choose from.

        Args:
            project: its own base is among them, whatever became of it.

        Returns:
            Starter, what is on this machine, what is recommended, what a search found.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:  # a page asks several times in a moment
            self._installed, self._looked_at = installed_bases(model_roots()), now
        cards = offered_bases(self._installed)
        known = {card.reference for card in cards}
        cards += [card for name, card in self._found.items() if name not in known]
        if all(card.reference != project.base for card in cards):
            is_folder = project.base.startswith("/")
            cards.append(BaseCard(
                reference=project.base,
                title=Path(project.base).name if is_folder else project.base,
                source="local folder" if is_folder else "found on the Hub",
                revision=project.revision,
                problem="It is not on this machine any more." if is_folder else "",
            ))  # fmt: skip
        return cards

    def card(self, project: Project) -> BaseCard:
        """Find the card of a project's base.

        Args:
            project: names it.

        Returns:
            The card; one that can be used before one that cannot.
        """
        cards = [card for card in self.cards(project) if card.reference == project.base]
        return next((card for card in cards if not card.problem), cards[0])

    def look_again(self) -> None:
        """See at once what has come to this machine a moment ago."""
        self._looked_at = -_LOOK_SECONDS

    def is_ready(self, project: Project) -> bool:
        """Say whether methods can be compared: there is data, and the base is here.

        Args:
            project: whose.

        Returns:
            Whether the engine may be asked.
        """
        card = self.card(project)
        return bool(project.dataset) and card.is_downloaded and not card.problem

    def search(self, query: str) -> int:
        """Look for bases on the Hub and offer what is found.

        Args:
            query: words of a name.

        Returns:
            How many there are.
        """
        found = search_hub(query)
        for card in found:
            self._found.put(card.reference, card)
        return len(found)

    def choose(self, project: Project, reference: str) -> Project:
        """Take another base.

        Args:
            project: of which.
            reference: one that was offered; nothing else is accepted.

        Returns:
            The project as it is now.
        """
        card = find_base(reference, self.cards(project))
        return self._server.projects.change(project.id, base=card.reference, revision=card.revision)

    def ask(self, project: Project) -> None:
        """Ask the engine for everything the step shows; may take seconds.

        Args:
            project: whose choices; where it cannot be asked, `trouble` says why.
        """
        try:
            self.describe()
            self.compare(project)
            self.reckon(project)
            self.trouble = None
        except StudioError as error:
            self.trouble = error

    def describe(self) -> dict[str, Any]:
        """Ask which methods there are, and keep it: they are those of the program.

        Returns:
            The engine's answer to "methods".
        """
        if not self._described:
            self._described = self._server.engine.call("methods")
        return self._described

    def compare(self, project: Project) -> None:
        """Ask what every method would take.

        Args:
            project: data, base and limits count.
        """
        if not self.is_ready(project):
            return
        request = _methods_request(self._request(project))
        try:
            result = self._call("compare_methods", request)
            rows = Rows(tuple(MethodRow.model_validate(row) for row in result["rows"]))
        except StudioError as error:
            rows = Rows(error=error)
        self._rows.put(request.model_dump_json(), rows)

    def reckon(self, project: Project) -> Answer | None:
        """Ask what the chosen plan would take.

        Args:
            project: its choices, right or wrong.

        Returns:
            The answer; None where nothing can be asked yet.
        """
        if not self.is_ready(project):
            return None
        request = self._request(project)
        try:
            result = self._call("estimate", request)
            answer = Answer(
                plan=TrainPlan.model_validate(result["plan"]),
                estimate=CostEstimate.model_validate(result["estimate"]),
                remedies=tuple(Remedy.model_validate(item) for item in result["remedies"]),
            )
        except StudioError as error:
            answer = Answer(error=error)
        self._answers.put(request.model_dump_json(), answer)
        return answer

    def touch(self, project: Project) -> None:
        """Remember that the method's own form has to be drawn anew when it is next shown.

        Args:
            project: whose options, method or way of looking at them changed.
        """
        self._edits[project.id] += 1

    def form(self, project: Project) -> str:
        """Name what the method's own form shows; the same text is the same form.

        Args:
            project: whose.

        Returns:
            A text; empty while the methods are not known.
        """
        if not self._described:
            return ""
        return json.dumps([project.id, project.choices.method, self._edits[project.id]])

    def is_known(self, project: Project) -> bool:
        """Say whether everything the step shows has been asked for already.

        Args:
            project: whose choices.

        Returns:
            Whether `rows` and `answer` have something to give.
        """
        return bool(self._described) and None not in (self.rows(project), self.answer(project))

    def rows(self, project: Project) -> Rows | None:
        """Give the last table for these data, base and limits.

        Args:
            project: whose.

        Returns:
            The table; None where nobody has asked yet.
        """
        request = _methods_request(self._request(project))
        return self._rows.get(request.model_dump_json()) if self.is_ready(project) else None

    def answer(self, project: Project) -> Answer | None:
        """Give the last answer to these very choices.

        Args:
            project: whose.

        Returns:
            The answer; None where nobody has asked yet.
        """
        key = self._request(project).model_dump_json()
        return self._answers.get(key) if self.is_ready(project) else None

    def keep(self, project: Project, *, force: bool = False) -> Project:
        """Write the plan of what is chosen; the same plan is not written twice.

        Args:
            project: whose choices.
            force: whether it is kept though it may not fit.

        Returns:
            The project with its plan.

        Raises:
            PlanError: there is no such plan, or it does not fit.
        """
        answer = self.reckon(project)
        if answer is None:
            raise PlanError(
                "The base model is not on this machine", where=self.card(project).title,
                fix="Download it first, or choose another one",
            )  # fmt: skip
        if answer.error is not None:
            raise answer.error
        assert answer.plan is not None and answer.estimate is not None
        if plan_of(self._server.home, project) == answer.plan:
            name = project.plan
        else:
            name = keep_plan(self._server.home, answer.plan, answer.estimate, force=force)
        return self._server.projects.change(project.id, plan=name, planned=project.to_plan)

    def file(self, project: Project) -> str | None:
        """Write the plan to be downloaded.

        Args:
            project: whose choices.

        Returns:
            Its path; None where there is no plan yet.
        """
        answer = self.answer(project)
        if answer is None or answer.plan is None:
            return None
        plan, path = self._files.get(project.id) or (
            None, self._server.downloads / secrets.token_hex(16) / "plan.yaml"
        )  # fmt: skip
        if plan != answer.plan:
            with disk_errors("the plan file"):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, write_plan(answer.plan))
            self._files.put(project.id, (answer.plan, path))
        return str(path)

    def fetch_job(self, project: Project) -> Job | None:
        """Find the newest download of a project's base.

        Args:
            project: names the base.

        Returns:
            The job; None where nobody has begun one.
        """
        for folder in reversed(self._server.home.all("fetch")):
            with suppress(StudioError):
                if Job(folder).request("fetch").get("base") == project.base:
                    return Job(folder)
        return None

    def fetch(self, project: Project, token: str) -> Job:
        """Put the download of a project's base into the line; the server starts it in a moment.

        While that goes on, there is no second one.

        Args:
            project: names it.
            token: for the Hub; kept in memory alone.

        Returns:
            The job.
        """
        queue, before = self._server.queue, self.fetch_job(project)
        if before is not None and queue.state(before) in ("queued", "running"):
            return before
        key = f"fetch {project.base} after {before.id if before else 'nothing'}"
        request = FetchRequest(base=project.base, revision=project.revision)
        return queue.submit(request, key=key, token=token.strip())

    def _request(self, project: Project) -> EstimateRequest:
        return plan_request(self._server.home, project, self.cards(project))

    def _call(self, operation: str, request: MethodsRequest) -> dict[str, Any]:
        result: dict[str, Any] = self._server.engine.call(
            operation, json.loads(request.model_dump_json())
        )
        return result


def _methods_request(request: EstimateRequest) -> MethodsRequest:
    return MethodsRequest(
        dataset_folder=request.dataset_folder,
        base=request.base,
        revision=request.revision,
        limits=request.limits,
    )
