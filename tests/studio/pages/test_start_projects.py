from studio.journey import Journey, StepState
from studio.pages.start_projects import matching, project_line
from studio.projects import Project

OPEN = dict.fromkeys(("upload", "prepare", "plan", "train", "compare", "publish"), StepState.LOCKED)


def project(name: str) -> Project:
    return Project(id="project-1", name=name, created_at=0.0)


def states(**changes: StepState) -> Journey:
    return Journey(**(OPEN | changes))


def test_search_wants_all_words_in_any_case() -> None:
    projects = [project("Support tickets"), project("Ärzte in STRASSE")]
    assert matching(projects, "") == projects
    assert matching(projects, " TICK supp ") == projects[:1]
    assert matching(projects, "ärzte straße") == projects[1:]
    assert matching(projects, "none") == []


def test_a_line_says_where_a_project_stands() -> None:
    begun = project_line(project("<b>x</b>"), states(upload=StepState.OPEN), now=30.0)
    assert "at step 1, upload" in begun and "begun just now" in begun and "<b>" not in begun
    assert begun.count("<li") == 6 and "prepare: not yet open" in begun
    done, working = StepState.DONE, StepState.WORKING
    assert "train is at work" in project_line(project("a"), states(upload=done, train=working))
    assert "model written" in project_line(project("a"), states(publish=done))
