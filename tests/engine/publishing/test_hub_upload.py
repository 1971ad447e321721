"""Uploading to a Hub that answers over real HTTP, and misbehaves where a test says so."""

import json
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from engine.publishing.hub_upload import (
    Patience,
    TokenOwner,
    check_repo_id,
    check_token,
    has_stored_login,
    stored_login,
    upload,
    whose_token,
)
from engine.publishing.publication import HubCommit
from templates.errors import RunError
from tests.faults import fault
from tests.hub_server import READ_TOKEN, WRITE_TOKEN, Fault, Hub, serve_publish_hub

NAME = "alice/tickets"
CARD = "---\nlicense: mit\n---\n\n# Tickets\n"
FILES = {
    "README.md": CARD.encode(),
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": bytes(range(256)) * 100,
    "nested/empty.txt": b"",
    "studio_run.json": "{}\u00e9".encode(),
}
QUICK = Patience(answer_seconds=5, pause_seconds=0.01, longest_pause_seconds=2, num_failures=4)
# huggingface_hub 2.4 gives files to httpx2 by an argument on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
COMMIT, PUT = "POST .*/commit/", "PUT /_store/"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serve_publish_hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "model"


class Heard:
    """What an upload said."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.shares: list[float] = []

    def progress(self, share: float, words: str) -> None:
        assert 0 <= share <= 1 and words
        self.shares.append(share)

    @property
    def text(self) -> str:
        return " ".join(self.notices)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def send(hub: Hub, folder: Path, heard: Heard, **options: Any) -> HubCommit:
    options = {"token": WRITE_TOKEN, "patience": QUICK, **options}
    name = options.pop("name", NAME)
    return upload(
        folder, name, endpoint=hub.url, progress=heard.progress, notice=heard.notices.append,
        **options,
    )  # fmt: skip


def refused(hub: Hub, folder: Path, heard: Heard, **options: Any) -> str:
    with pytest.raises(RunError) as raised:
        send(hub, folder, heard, **options)
    told = str(raised.value) + repr(raised.value) + heard.text
    assert WRITE_TOKEN not in told and READ_TOKEN not in told
    error = raised.value
    assert error.__context__ is None or error.__suppress_context__, "it holds the request"
    return str(raised.value)


def assert_published_once(hub: Hub, num_commits: int = 2) -> None:
    repo = hub.repos[NAME]
    assert {name: repo.head.files[name] for name in FILES} == FILES
    assert len(repo.commits) == num_commits
    assert [one.oid for one in repo.commits[:-1]] == [one.parent for one in repo.commits[1:]]


def assert_token_only_where_it_belongs(hub: Hub) -> None:
    for asked in hub.requests:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        authorization = headers.pop("authorization", "")
        assert authorization in ("", f"Bearer {WRITE_TOKEN}")
        rest = asked.path + json.dumps(headers)
        assert WRITE_TOKEN not in rest and WRITE_TOKEN.encode() not in asked.body
        if asked.path.startswith("/_store/"):
            assert not authorization, "a store on another machine must not get it"


def test_a_new_repository_is_private_and_has_one_commit(
    hub: Hub, folder: Path, heard: Heard
) -> None:
    done = send(hub, folder, heard)
    repo = hub.repos[NAME]
    assert repo.private and repo.head.files.keys() - FILES.keys() == {".gitattributes"}
    assert_published_once(hub)
    assert done == HubCommit(
        url=f"{hub.url}/{NAME}", repo_id=NAME, commit=repo.head.oid,
        revision_parent=repo.commits[0].oid, is_new_repo=True, private=True,
    )  # fmt: skip
    assert heard.shares[-1] > 0.9 and heard.notices == []
    assert_token_only_where_it_belongs(hub)


def test_the_same_files_again_make_no_commit(hub: Hub, folder: Path, heard: Heard) -> None:
    first = send(hub, folder, heard)
    hub.requests.clear()
    second = send(hub, folder, heard)
    assert second == first.model_copy(
        update={"revision_parent": first.commit, "is_new_repo": False}
    )
    assert_published_once(hub)
    assert not {"POST", "PUT", "DELETE"} & {asked.method for asked in hub.requests}


def test_a_large_file_goes_in_parts(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.part_bytes = 10_000
    send(hub, folder, heard)
    assert sum("/_store/" in path for path in hub.paths) == 3
    assert_published_once(hub)


def test_several_large_files_go_side_by_side(hub: Hub, folder: Path, heard: Heard) -> None:
    for number in range(3):
        (folder / f"model-{number}.safetensors").write_bytes(bytes([number]) * 50_000)
    hub.faults = [Fault(PUT, status=403, skip=1)]
    assert "may not do that here" in refused(hub, folder, heard)
    assert hub.repos == {}
    send(hub, folder, heard)
    assert len(hub.stored) == 4
    assert_published_once(hub)


def test_other_files_stay_and_replaced_ones_are_named(hub: Hub, folder: Path, heard: Heard) -> None:
    files = {"README.md": b"---\n---\nold", "notes.txt": b"mine"}
    hub.add_repo(NAME, private=True, files=files)
    done = send(hub, folder, heard)
    assert not done.is_new_repo
    assert_published_once(hub)
    assert hub.repos[NAME].head.files["notes.txt"] == b"mine"
    assert "new version: README.md." in heard.text and "as they are: notes.txt." in heard.text


def test_visibility_is_never_changed(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.add_repo(NAME, private=False)
    assert "is public, and this was to be private" in refused(hub, folder, heard)
    assert len(hub.repos[NAME].commits) == 1
    assert not send(hub, folder, heard, private=False).private
    hub.add_repo("alice/hidden", private=True)
    assert send(hub, folder, heard, private=False, name="alice/hidden").private
    assert hub.repos["alice/hidden"].private and "is private and stays so" in heard.text
    assert not send(hub, folder, heard, private=False, name="a-team/new").private


BAD_NAMES = (
    "", "tickets", "/tickets", "alice/", "alice/..", "../tickets", "alice/a..b", "alice/a--b",
    "alice/.tickets", "alice/tickets.", "alice/-tickets", "alice/tickets-", "alice/tick ets",
    "alice/tickets\n", "alice/tickets.git", "alice/tick\u00e9ts", "a/b/c", "alice/" + "x" * 97,
    "https://huggingface.co/alice/tickets", "datasets/alice/tickets", "alice/%2e%2e", "\u202ea/b",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_NAMES)))
def test_a_bad_name_is_refused_before_the_network(number: int, hub: Hub, folder: Path) -> None:
    with pytest.raises(RunError, match="user/name"):
        upload(folder, BAD_NAMES[number], token=WRITE_TOKEN, endpoint=hub.url)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["alice/Tickets-1.0_b", "A/b", "alice/" + "x" * 90])
def test_a_good_name(name: str) -> None:
    check_repo_id(name)


@pytest.mark.parametrize(
    ("token", "words"),
    [("", "needs a token"), (" \n", "needs a token"), ("hf_a b", "no token"),
     ("hf_\nx", "no token"), ("hf_\u00e9", "no token"), ("x" * 600, "no token")],
    ids=["none", "blank", "space", "line", "accent", "long"],
)  # fmt: skip
def test_a_bad_token_is_refused_before_the_network(
    token: str, words: str, hub: Hub, folder: Path
) -> None:
    with pytest.raises(RunError, match=words) as raised:
        upload(folder, NAME, token=token, endpoint=hub.url)
    assert not token.strip() or token not in str(raised.value)
    assert hub.requests == []


def test_a_token_may_be_pasted_with_spaces_around_it() -> None:
    assert check_token(f" {WRITE_TOKEN}\n") == WRITE_TOKEN


@pytest.mark.parametrize(
    "endpoint", ["http://hub.example.org", "ftp://hub", "http://127.0.0.1.evil.org", "http://["]
)
def test_the_token_is_not_sent_in_the_clear(endpoint: str, folder: Path) -> None:
    with pytest.raises(RunError, match="not a safe one"):
        upload(folder, NAME, token=WRITE_TOKEN, endpoint=endpoint, patience=QUICK)


@fault(21, "The Hub does not know the token (401)", "A sentence; nothing is made there")
def test_an_unknown_token(hub: Hub, folder: Path, heard: Heard) -> None:
    assert "does not know this token" in refused(hub, folder, heard, token="hf_unknown")
    assert hub.repos == {}


@fault(21, "The token may only read, or not write here (403)", "A sentence; nothing is made there")
def test_a_token_without_the_right(hub: Hub, folder: Path, heard: Heard) -> None:
    assert "may only read" in refused(hub, folder, heard, token=READ_TOKEN)
    words = refused(hub, folder, heard, name="bob/tickets")
    assert "does not belong to bob" in words and "alice or a-team" in words
    assert hub.paths == ["/api/whoami-v2"] * 2, "nothing else was asked"
    hub.faults = [Fault("POST /api/repos/create", status=403)]
    assert "may not do that here" in refused(hub, folder, heard)
    hub.faults = [Fault("POST .*/preupload", status=403)]
    assert "may not do that here" in refused(hub, folder, heard)
    assert hub.repos == {}, "what was made could not be filled, and is gone again"


@fault(21, "The repository vanishes during the upload (404)", "A sentence; nothing is left behind")
def test_a_repository_that_vanishes(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(COMMIT, meanwhile=lambda: hub.repos.clear())]
    assert "no such repository any more" in refused(hub, folder, heard)
    assert hub.repos == {}


@fault(21, "The name is taken since it was looked up (409)", "The repository that is there is used")
def test_a_repository_that_appears(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault("POST /api/repos/create", meanwhile=lambda: hub.add_repo(NAME))]
    assert not send(hub, folder, heard).is_new_repo
    assert_published_once(hub)


def test_a_name_taken_by_what_the_token_cannot_see(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault("POST /api/repos/create", status=409)]
    assert "this token cannot see" in refused(hub, folder, heard)
    assert hub.repos == {}


@fault(21, "A commit conflicts with another that is being made (409)", "Looked at, tried again")
def test_a_commit_that_conflicts(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(COMMIT, status=409)]
    send(hub, folder, heard)
    assert_published_once(hub)


@fault(21, "Somebody else commits other files in between (412)", "Committed on top of theirs")
def test_somebody_commits_other_files(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(COMMIT, meanwhile=lambda: hub.repos[NAME].add({"notes.txt": b"theirs"}))]
    send(hub, folder, heard)
    assert_published_once(hub, 3)
    assert hub.repos[NAME].head.files["notes.txt"] == b"theirs"


@fault(21, "Somebody else commits the same file in between (412)", "Refused; theirs stays")
def test_somebody_commits_the_same_file(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(COMMIT, meanwhile=lambda: hub.repos[NAME].add({"README.md": b"theirs"}))]
    assert "Somebody else has just changed README.md" in refused(hub, folder, heard)
    repo = hub.repos[NAME]
    assert repo.head.files["README.md"] == b"theirs" and len(repo.commits) == 2
    assert "studio_run.json" not in repo.head.files


def test_somebody_who_never_stops(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.add_repo(NAME)
    hub.faults = [Fault(COMMIT, times=-1, meanwhile=lambda: hub.repos[NAME].add({"x": b"x"}))]
    assert "keeps changing this repository" in refused(hub, folder, heard)
    assert hub.repos[NAME].head.files.keys() == {".gitattributes", "x"}


@fault(21, "The Hub is busy and says for how long (429)", "Waited for, and said")
@pytest.mark.parametrize("at", ["GET /api/whoami-v2", "POST /api/repos/create", PUT, COMMIT])
def test_a_busy_hub(at: str, hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(at, status=429, headers={"Retry-After": "1"})]
    send(hub, folder, heard)
    assert_published_once(hub)
    assert "busy or ill (status 429); trying again in 1 seconds." in heard.text


@fault(21, "The Hub asks for a long pause (429)", "Failed at once, with the time to wait")
@pytest.mark.parametrize("at", [PUT, COMMIT])
def test_a_hub_that_is_busy_for_long(at: str, hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(at, status=429, headers={"Retry-After": "86400"})]
    assert "left alone for 86400 seconds" in refused(hub, folder, heard)
    assert hub.repos == {}


@fault(21, "Status 500 at the n-th file", "Sent again; one commit")
@pytest.mark.parametrize("skip", [0, 2])
def test_an_ill_hub(skip: int, hub: Hub, folder: Path, heard: Heard) -> None:
    hub.part_bytes = 10_000
    hub.faults = [Fault(PUT, status=500, skip=skip)]
    send(hub, folder, heard)
    assert_published_once(hub)
    assert "status 500" in heard.text


@fault(21, "The Hub stays ill (500)", "Given up after some tries; nothing is left behind")
@pytest.mark.parametrize(
    "at",
    ["GET /api/whoami-v2", "GET /api/models/alice/tickets", "POST /api/repos/create",
     "POST .*/batch", PUT, COMMIT],
)  # fmt: skip
def test_a_hub_that_stays_ill(at: str, hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(at, status=500, times=-1)]
    patience = Patience(answer_seconds=5, pause_seconds=0.01, num_failures=2)
    words = refused(hub, folder, heard, patience=patience)
    assert "status 500" in words and "publish again" in words.lower()
    assert hub.repos == {}


@fault(21, "The connection is cut before the commit is made", "Looked at, then made once")
def test_a_connection_cut_before_the_commit(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [
        Fault(COMMIT, reset=True),
        Fault("GET .*/tree/", reset=True),
        Fault(PUT, reset=True),
    ]
    send(hub, folder, heard)
    assert_published_once(hub)


@fault(21, "The connection is cut after the commit was made", "Found; no second commit")
@pytest.mark.parametrize("status", [0, 500])
def test_an_answer_that_is_lost(status: int, hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(COMMIT, reset=not status, status=status, afterwards=True)]
    done = send(hub, folder, heard)
    assert_published_once(hub)
    assert done.commit == hub.repos[NAME].head.oid != done.revision_parent and done.is_new_repo


@fault(21, "The answer to making the repository is lost", "Found; used, and made once")
def test_a_lost_answer_about_the_repository(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault("POST /api/repos/create", reset=True, afterwards=True)]
    send(hub, folder, heard)
    assert_published_once(hub)


@fault(21, "The Hub answers too late, and makes the commit after all", "Found; no second commit")
def test_a_slow_hub(hub: Hub, folder: Path, heard: Heard) -> None:
    patience = Patience(answer_seconds=0.5, pause_seconds=0.01, num_failures=4)
    hub.faults = [Fault(COMMIT, delay_seconds=1.0), Fault(PUT, delay_seconds=1.0, afterwards=True)]
    send(hub, folder, heard, patience=patience)
    threading.Event().wait(1.0)  # until the slow one is done too
    assert_published_once(hub)
    assert "does not answer (ReadTimeout)" in heard.text


def test_a_hub_that_is_gone(folder: Path, heard: Heard) -> None:
    with serve_publish_hub() as hub:
        pass
    assert "does not answer (ConnectError), 4 times" in refused(hub, folder, heard)


@fault(
    21, "The Hub confirms another content than was sent (ETag)", "Refused; nothing is left behind"
)
def test_a_wrong_etag(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.part_bytes = 10_000
    hub.faults = [Fault(PUT, wrong_etag=True)]
    assert "does not take these files: Part 1 is not what" in refused(hub, folder, heard)
    assert hub.repos == {}
    send(hub, folder, heard)
    assert_published_once(hub)


@fault(21, "The Hub keeps other bytes than it was sent", "Noticed afterwards, and said")
def test_other_bytes_than_were_sent(hub: Hub, folder: Path, heard: Heard) -> None:
    def spoil() -> None:
        hub.repos[NAME].head.files["adapter_config.json"] = b'{"r": 5}'

    hub.faults = [Fault("GET .*/tree/", skip=1, meanwhile=spoil)]
    assert "not those that were sent" in refused(hub, folder, heard)


def test_a_card_that_the_hub_does_not_take(hub: Hub, folder: Path, heard: Heard) -> None:
    (folder / "README.md").write_text("no front matter")
    assert "model card: - no front matter" in refused(hub, folder, heard)
    assert hub.repos == {}


def test_answers_that_are_not_json(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault("POST .*/preupload", status=200)]
    assert "answer could not be used" in refused(hub, folder, heard)
    assert hub.repos == {}


def test_a_hub_that_repeats_the_token(hub: Hub, folder: Path, heard: Heard) -> None:
    header = {"X-Error-Message": f"bad {WRITE_TOKEN}!"}
    hub.faults = [Fault("POST /api/repos/create", status=403, headers=header)]
    assert "[the token]" in refused(hub, folder, heard)


@fault(21, "Stopped in the middle of an upload", "The repository made for it is gone again")
@pytest.mark.parametrize("at", [PUT, COMMIT])
def test_a_stop(at: str, hub: Hub, folder: Path) -> None:
    class StopWork(BaseException):
        pass

    def stop(words: str) -> None:
        if "status 500" in words:
            raise StopWork

    hub.faults = [Fault(at, status=500)]
    with pytest.raises(StopWork):
        upload(folder, NAME, token=WRITE_TOKEN, endpoint=hub.url, notice=stop, patience=QUICK)
    assert hub.repos == {}


def test_what_another_made_is_never_removed(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.add_repo(NAME)
    hub.faults = [Fault(PUT, status=403)]
    refused(hub, folder, heard)
    assert len(hub.repos[NAME].commits) == 1
    assert "DELETE" not in {asked.method for asked in hub.requests}


def test_what_cannot_be_removed_is_said(hub: Hub, folder: Path, heard: Heard) -> None:
    hub.faults = [Fault(PUT, status=403), Fault("DELETE", status=403)]
    refused(hub, folder, heard)
    assert "empty repository alice/tickets could not be removed" in heard.text


def test_an_empty_folder(hub: Hub, tmp_path: Path, heard: Heard) -> None:
    assert "nothing to publish" in refused(hub, tmp_path, heard)


def test_whose_a_token_is(hub: Hub) -> None:
    assert whose_token(f" {WRITE_TOKEN} ", endpoint=hub.url) == TokenOwner(
        "alice", ("a-team",), may_write=True
    )
    assert not whose_token(READ_TOKEN, endpoint=hub.url).may_write
    asked = {(request.method, request.path) for request in hub.requests}
    assert asked == {("GET", "/api/whoami-v2")}


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([Fault("GET /api/whoami", status=500)], "refused it (status 500)"),
        ([Fault("GET /api/whoami", reset=True)], "cannot be reached"),
        ([], "does not know this token"),
    ],
    ids=["ill", "reset", "unknown"],
)
def test_a_hub_that_does_not_say_whose(hub: Hub, faults: list[Fault], words: str) -> None:
    hub.faults = faults
    token = WRITE_TOKEN if faults else "hf_of_nobody"
    with pytest.raises(RunError) as caught:
        whose_token(token, endpoint=hub.url)
    assert words in caught.value.what and token not in str(vars(caught.value))
    assert token not in "".join(traceback.format_exception(caught.value))


def test_whose_is_never_asked_in_the_clear() -> None:
    with pytest.raises(RunError, match="not a safe one"):
        whose_token(WRITE_TOKEN, endpoint="http://hub.example.org")


def test_a_login_is_seen_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert not has_stored_login() and stored_login() == ""
    (tmp_path / "token").write_text(WRITE_TOKEN)
    assert has_stored_login() and stored_login() == WRITE_TOKEN
