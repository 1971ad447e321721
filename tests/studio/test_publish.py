"""Publish jobs that send to a Hub: workers and verbs as people start them, over real HTTP."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from engine.events import Noticed
from engine.jobs import Job
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan
from engine.publishing.publication import Publication
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import PublishRequest, TrainRequest, lane_of
from studio.jobs.stopping import StopRequest
from studio.jobs.worker import work_on
from studio.publishing_check import published_folder, read_publication, what_will_be_uploaded
from studio.records import PUBLICATION
from studio.settings import child_environment
from templates.errors import RunError
from tests.engine.publishing.published import small_dataset
from tests.engine.tiny import save_tiny
from tests.faults import fault
from tests.hub_server import WRITE_TOKEN, Fault, Hub, serve_publish_hub

ROOT = Path(__file__).parents[2]
NAME = "alice/tickets"
# huggingface_hub 2.4 gives files to httpx2 by an argument on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def work(home: Home, job: Job, token: str = WRITE_TOKEN) -> Job:
    """One attempt, in this process."""
    Queue(home).stop(job)  # out of the line
    with StopRequest() as stop:
        work_on(home, job, stop, token=token)
    return job


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with one finished run."""
    folder = tmp_path_factory.mktemp("publish")
    home = Home(folder / "home")
    dataset = small_dataset(home.place("dataset") / "tickets-1")
    (home.place("dataset") / "tickets-1").rename(home.place("dataset") / "ds-tickets")
    plan = TrainPlan(
        base=BaseChoice(id=str(save_tiny(folder / "base", "llama"))),
        dataset_id="ds-tickets",
        dataset_sha256=dataset.sha256,
        method=MethodChoice(name="lora", options={"rank": 4}),
        schedule=Schedule(learning_rate=0.01, epochs=1, batch_size=4),
    )
    run = work(home, Queue(home).submit(TrainRequest(plan=plan)))
    assert run.status().state == "finished", run.status()
    return home


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_publish_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)  # for processes of their own
        yield hub


def submit(home: Home, **changes: object) -> Job:
    run_id = home.find("train", "latest").name
    return Queue(home).submit(PublishRequest(**{"run_id": run_id, "name": "Tickets", **changes}))


def publication(job: Job) -> Publication:
    found = read_publication(job)
    assert found is not None
    return found


def assert_no_token(*places: Path) -> None:
    for place in places:
        for path in place.rglob("*"):
            assert not path.is_file() or WRITE_TOKEN.encode() not in path.read_bytes(), path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_job_writes_and_sends(home: Home, hub: Hub) -> None:
    job = work(home, submit(home, repo_id=NAME))
    assert job.status().state == "finished", job.status()
    sent = publication(job).hub
    repo = hub.repos[NAME]
    assert sent and (sent.commit, sent.private) == (repo.head.oid, True) and repo.private
    assert repo.head.summary == "Publish Tickets" and len(repo.commits) == 2
    assert files_of(job.folder / "model").items() <= repo.head.files.items()
    assert_no_token(home.root)


def test_a_second_attempt_sends_nothing_twice(home: Home, hub: Hub) -> None:
    job = work(home, submit(home, repo_id=NAME))
    before = files_of(job.folder / "model"), (job.folder / "model").stat().st_ino
    first = publication(job).hub
    assert first
    hub.requests.clear()
    with StopRequest() as stop:  # as after a kill just before the last word
        work_on(home, job, stop, token=WRITE_TOKEN)
    assert {asked.method for asked in hub.requests} == {"GET"}
    assert len(hub.repos[NAME].commits) == 2
    again = publication(job).hub
    assert again and again.commit == first.commit
    assert (files_of(job.folder / "model"), (job.folder / "model").stat().st_ino) == before


def test_what_was_looked_at_is_what_is_sent(home: Home, hub: Hub) -> None:
    written = work(home, submit(home), token="")
    assert hub.requests == [] and publication(written).hub is None
    job = submit(home, repo_id=NAME, publication_id=written.id)
    assert lane_of(PublishRequest(**job.request("publish"))) == "network"
    work(home, job)
    assert job.status().state == "finished", job.status()
    assert published_folder(job) == published_folder(written) == written.folder / "model"
    assert files_of(written.folder / "model").items() <= hub.repos[NAME].head.files.items()
    assert not (job.folder / "model").exists()
    (written.folder / "model" / "README.md").write_text("changed since")
    late = work(home, submit(home, repo_id="alice/other", publication_id=written.id))
    assert late.status().what == "The published folder is not there any more as it was written"
    assert "alice/other" not in hub.repos


@pytest.mark.parametrize(
    ("changes", "token", "words"),
    [
        ({"repo_id": "no-owner"}, WRITE_TOKEN, "A repository is named user/name"),
        ({"repo_id": "a/.."}, WRITE_TOKEN, "holds"),
        ({"repo_id": NAME}, "", "needs a token"),
        ({"repo_id": NAME}, "two words", "This is no token"),
        ({"repo_id": NAME, "publication_id": "publish-none"}, WRITE_TOKEN, "no publication"),
    ],
    ids=["owner", "dots", "no-token", "words", "publication"],
)
def test_mistakes_fail_before_anything_is_done(
    home: Home, hub: Hub, changes: dict[str, str], token: str, words: str
) -> None:
    job = work(home, submit(home, **changes), token=token)
    assert job.status().state == "failed" and words in job.status().what, job.status()
    assert hub.requests == [] and not (job.folder / "model").exists()


def test_a_publication_is_an_id_and_no_path(home: Home) -> None:
    with pytest.raises(ValueError, match="pattern"):
        submit(home, repo_id=NAME, publication_id="publish-../../x")


def test_findings_stop_it_before_the_network(home: Home, hub: Hub) -> None:
    job = submit(home, repo_id=NAME, name="ask alice@example.com")
    assert work(home, job).status().state == "failed"
    assert "private in it: e-mail address in README.md and" in job.status().what
    assert hub.requests == []
    outgoing = what_will_be_uploaded(job.folder / "model")
    accepted = tuple(finding.id for finding in outgoing.findings)
    part = submit(home, repo_id=NAME, name="ask alice@example.com", acknowledged=accepted[:1])
    assert work(home, part).status().state == "failed" and hub.requests == []
    whole = submit(home, repo_id=NAME, name="ask alice@example.com", acknowledged=accepted)
    assert work(home, whole).status().state == "finished", whole.status()


def test_notices_of_the_hub_reach_the_person(home: Home, hub: Hub) -> None:
    hub.add_repo(NAME, private=True, files={"notes.txt": b"mine"})
    job = work(home, submit(home, repo_id=NAME, private=False))
    told = [event.words for event in job.events() if isinstance(event, Noticed)]
    assert told == [
        f"{NAME} is private and stays so; its settings on the Hub change that.",
        "These files there stay as they are: notes.txt.",
    ]
    assert job.status().state == "finished" and hub.repos[NAME].private


@pytest.mark.parametrize(
    ("endpoint", "is_off"),
    [("", False), ("https://huggingface.co", False), ("https://hf.co/", False),
     ("http://127.0.0.1:8000", True), ("https://hub.example.org", True), ("nonsense", True)],
    ids=["none", "hub", "short", "local", "other", "nonsense"],
)  # fmt: skip
def test_another_hub_is_used_without_xet(
    endpoint: str, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    environment = child_environment(offline=True)
    assert ("HF_HUB_DISABLE_XET" in environment) == is_off
    assert WRITE_TOKEN not in environment.values()
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "0")
    assert child_environment(offline=True)["HF_HUB_DISABLE_XET"] == "0", "as the person said"


def run(home: Home, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", "publish", *arguments], cwd=ROOT, text=True, timeout=120,
        env={**os.environ, "STUDIO_HOME": str(home.root), **environment},
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_verb_sends_and_shows_first_what(home: Home, hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Fault("PUT /_store/", status=500)]
    done = run(home, "--hub", NAME, HF_TOKEN=WRITE_TOKEN)
    assert done.returncode == 0, done.stderr
    assert "status 500); trying again" in done.stdout + done.stderr
    log = (home.root / "jobs" / home.all("publish")[-1].name / "worker.log").read_text()
    assert "_store" not in log, "the library writes addresses, which may hold a signature"
    assert "adapter_model.safetensors" in done.stdout and f"To {NAME}, private" in done.stdout
    repo = hub.repos[NAME]
    assert f"{hub.url}/{NAME} at commit {repo.head.oid}" in done.stdout and repo.private
    # Once more, from the login that the person has on this machine; nothing is made twice.
    (tmp_path / "token").write_text(WRITE_TOKEN)
    newest = home.all("publish")[-2].name
    again = run(
        home, "--hub", NAME, "--publication", newest, "--use-login", "--json",
        HF_TOKEN_PATH=str(tmp_path / "token"),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["hub"]["commit"] == repo.head.oid
    assert len(repo.commits) == 2
    assert_no_token(home.root)
    assert WRITE_TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr


@pytest.mark.slow
def test_mistakes_at_the_verb_are_sentences(home: Home, hub: Hub, tmp_path: Path) -> None:
    before = len(home.all("publish"))
    for arguments, words in (
        (("--hub", "tickets"), "A repository is named user/name"),
        (("--hub", NAME, "--public"), "Everybody will be able to see"),
        (("--hub", NAME, "--public", "--confirm", "alice/ticket"), "Type its whole name"),
        (("--publication", "publish-x"), "Say where to: --hub user/name"),
    ):
        done = run(home, *arguments, HF_TOKEN=WRITE_TOKEN)
        assert done.returncode == 1 and words in done.stderr, done.stderr
    # The login of this machine is used only where the person says so.
    (tmp_path / "token").write_text(WRITE_TOKEN)
    silent = run(home, "--hub", NAME, HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "token"))
    assert silent.returncode == 1 and "needs a token" in silent.stderr
    assert len(home.all("publish")) == before and hub.requests == []
    done = run(home, "--hub", NAME, "--name", "call alice@example.com", HF_TOKEN=WRITE_TOKEN)
    assert done.returncode == 1 and hub.requests == []
    assert "Perhaps private" in done.stdout and "call [EMAIL]" in done.stdout
    written = home.all("publish")[-1].name
    assert f"--publication {written} --accept-findings" in done.stderr
    accepted = run(
        home, "--hub", NAME, "--publication", written, "--accept-findings", "--public",
        "--confirm", NAME, HF_TOKEN=WRITE_TOKEN,
    )  # fmt: skip
    assert accepted.returncode == 0, accepted.stderr
    assert not hub.repos[NAME].private and "on the Hub, public" in accepted.stdout


@fault(21, "The worker is stopped while it sends to a slow Hub", "Nothing is left there")
@pytest.mark.slow
def test_a_worker_that_is_stopped_leaves_nothing(home: Home, hub: Hub) -> None:
    written = work(home, submit(home), token="")
    hub.faults = [Fault("PUT /_store/", delay_seconds=4)]
    queue = Queue(home)
    run_id = home.find("train", "latest").name
    request = PublishRequest(run_id=run_id, name="x", publication_id=written.id, repo_id=NAME)
    job = queue.submit(request, token=WRITE_TOKEN)
    queue.advance()
    wait_for(lambda: any("/_store/" in path for path in hub.paths))
    assert NAME in hub.repos
    stopped = time.monotonic()
    queue.stop(job)
    wait_for(lambda: job.status().state != "running")
    assert job.status().state == "stopped" and time.monotonic() - stopped < 10
    assert hub.repos == {}
    # Its token is forgotten: going on asks for it.
    queue.resume(job)
    queue.advance()
    wait_for(lambda: job.status().state == "failed")
    assert "needs a token" in job.status().what
    assert_no_token(home.root)


@fault(
    21, "SIGKILL of the worker after the commit, before its last word", "Found; no second commit"
)
@pytest.mark.slow
def test_a_worker_killed_after_the_commit(home: Home, hub: Hub) -> None:
    written = work(home, submit(home), token="")
    hub.faults = [Fault("POST .*/commit/", delay_seconds=30, afterwards=True)]
    queue = Queue(home)
    run_id = home.find("train", "latest").name
    request = PublishRequest(run_id=run_id, name="x", publication_id=written.id, repo_id=NAME)
    job = queue.submit(request, token=WRITE_TOKEN)
    queue.advance()
    wait_for(lambda: NAME in hub.repos and len(hub.repos[NAME].commits) == 2)
    queue.stop(job, force=True)
    assert job.status().state == "interrupted"
    work(home, job)
    assert job.status().state == "finished", job.status()
    sent = publication(job).hub
    assert sent and sent.commit == hub.repos[NAME].head.oid
    assert len(hub.repos[NAME].commits) == 2


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a published folder"):
        what_will_be_uploaded(tmp_path)
    assert not (tmp_path / PUBLICATION).exists()
