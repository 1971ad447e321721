"""What the prepare step keeps and finds again."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from data_prep.recipe import PrepRecipe
from data_prep.upload import read_upload
from studio.home import Home
from studio.pages.prepare_data import PreparedData
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import with_column, with_wording, without_step
from studio.pages.prepare_replay import read_recipe
from studio.projects import Project
from studio.server import Server
from templates.errors import DataError
from tests.studio.tables import write_table


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Home(tmp_path_factory.mktemp("home")))
    yield server  # nobody moves its line on: what waits there stays
    server.data.close()
    server.engine.close()


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Project:
    folder = server.home.new("upload")
    read_upload(write_table(tmp_path / "table.csv"), folder, name="table.csv")
    project = server.projects.new("Tickets")
    return server.projects.change(project.id, upload=folder.name)


def test_the_recommended_recipe_counts_until_another_is_chosen(
    server: Server, project: Project
) -> None:
    desk = Desk(server)
    usual = desk.recipe(project)
    assert project.recipe is None
    project = desk.choose(project, lambda now: without_step(now, "steps", "trim"))
    assert "trim" not in [step.name for step in desk.recipe(project).steps]
    project = server.projects.undo_recipe(project.id)
    assert desk.recipe(project) == usual


def reworded(typed: str, recipe: PrepRecipe) -> PrepRecipe:
    return with_wording(recipe, "wording", typed)


def test_typing_is_undone_at_once(server: Server, project: Project) -> None:
    desk = Desk(server)
    usual = desk.recipe(project)
    for typed in ("T {text}", "Te {text}", "Tex {text}"):
        project = desk.choose(project, functools.partial(reworded, typed))
    assert desk.recipe(project).template.wording == "Tex {text}"
    assert desk.recipe(server.projects.undo_recipe(project.id)) == usual


def test_two_handlers_at_once_keep_both_changes(server: Server, project: Project) -> None:
    desk, together = Desk(server), Barrier(2)

    def press(*names: str) -> None:
        together.wait()
        for name in names:  # each knows the project only as it was at first
            desk.choose(project, functools.partial(without_step, kind="steps", name=name))

    pressed = [("trim", "empty"), ("length", "duplicates")]
    threads = [Thread(target=press, args=names) for names in pressed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = server.projects.read(project.id)
    left = {step.name for step in desk.recipe(after).steps}
    assert left and not left & {"trim", "empty", "length", "duplicates"}
    while after.earlier_recipes:
        after = server.projects.undo_recipe(project.id)
    assert desk.recipe(after) == desk.recipe(project)


def test_what_makes_no_difference_is_not_kept(server: Server, project: Project) -> None:
    desk = Desk(server)
    assert not isinstance(desk.try_next(project, lambda now: now), str)
    assert server.projects.read(project.id) == project
    told = desk.try_next(project, lambda now: without_step(now, "steps", "trim"))
    assert told.isdecimal()
    with pytest.raises(DataError):
        desk.choose(project, functools.partial(reworded, "no slot at all"))
    after = server.projects.change(project.id, base="other")  # the lock is free again
    assert "trim" not in [step.name for step in desk.recipe(after).steps]


def test_a_step_that_comes_back_has_its_last_options(server: Server, project: Project) -> None:
    desk = Desk(server)
    recipe = desk.recipe(project)
    steps = tuple(
        step.model_copy(update={"options": {**step.options, "max_characters": 77}})
        if step.name == "length"
        else step
        for step in recipe.steps
    )
    project = desk.choose(project, lambda now: now.model_copy(update={"steps": steps}))
    project = desk.choose(project, lambda now: without_step(now, "steps", "length"))
    assert desk.last_options(project, "steps", "length").options["max_characters"] == 77
    assert desk.last_options(project, "augmenters", "word_noise").options == {}


def test_a_recipe_is_tried_in_the_data_process(server: Server, project: Project) -> None:
    desk = Desk(server)
    assert desk.tried(project) is None
    tried = desk.try_out(project)
    assert tried.error is None
    assert tried.rows[0].completion == " billing END"
    assert tried.rehearsal is not None
    assert tried.rehearsal.label_counts == {"billing": 20, "returns": 20, "shipping": 20}
    assert desk.tried(project) == tried


def test_a_recipe_that_does_not_fit_says_why(server: Server, project: Project) -> None:
    desk = Desk(server)
    project = desk.choose(project, lambda now: with_column(now, "text", ""))
    tried = desk.try_out(project)
    assert tried.rehearsal is None
    assert "No column is mapped to text" in str(tried.error)
    with pytest.raises(DataError, match="No column is mapped to text"):
        PreparedData(server, desk).start(project)
    assert server.projects.read(project.id).prepare_job == ""


def test_a_project_without_its_table_is_no_mistake(server: Server, project: Project) -> None:
    desk = Desk(server)
    made = PreparedData(server, desk)
    gone = server.projects.change(project.id, upload="up-gone", dataset="ds-gone")
    assert desk.upload(gone) is None
    assert desk.tried(gone) is None
    assert made.data(gone) is None
    assert made.recipe_of_data(gone) is None
    with pytest.raises(DataError, match="no table"):
        desk.recipe(gone)


def test_a_double_click_starts_one_job(server: Server, project: Project) -> None:
    made, together = PreparedData(server, Desk(server)), Barrier(2)
    server.queue.advance = lambda: None  # type: ignore[method-assign]  # it shall wait

    def press() -> None:
        together.wait()
        made.start(project)

    threads = [Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.queue.waiting()) == 1
    after = server.projects.read(project.id)
    assert after.prepare_job == server.queue.waiting()[0]
    assert made.start(after) == after
    assert made.start(project).prepare_job == after.prepare_job  # a click that came a little late
    assert len(server.queue.waiting()) == 1


def test_a_recipe_file_is_read_whole(server: Server, project: Project, tmp_path: Path) -> None:
    recipe = Desk(server).recipe(project)
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json(), encoding="utf-8")
    assert read_recipe(path) == recipe


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no json", b"[]", b"[" * 100_000, b"\xff\xfe", b"{}", b'{"template": 3}', b"null",
        b'{"a": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_recipe(path)


def test_a_recipe_with_unknown_or_harmful_parts_is_refused(
    server: Server, project: Project, tmp_path: Path
) -> None:
    content = json.loads(Desk(server).recipe(project).to_json())
    path = tmp_path / "recipe.json"
    for changes in (
        {"steps": [{"name": "os.system", "options": {}}]},
        {"steps": [{"name": "length", "options": {"max_characters": -1}}]},
        {"seed": -1},
        {"template": {**content["template"], "wording": "".join(f"{{s{n}}}" for n in range(20))}},
        {"anything": "else"},
    ):
        path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
        with pytest.raises(DataError):
            read_recipe(path)


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(DataError, match="too large"):
        read_recipe(path)
