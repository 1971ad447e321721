"""A folder onto the Hub: as one commit, or not at all. Free of torch.

Everything is looked at before it is done, and again after an answer was lost: so a second attempt
finds what the first one did, and no commit is made twice. A commit names its parent; where somebody
else was faster, theirs is looked at too. A repository that this very upload made goes away again
where it could not be filled.

Texts from the Hub are shown without the token, should the Hub repeat it.
"""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
    get_token,
    set_client_factory,
)
from huggingface_hub import logging as hub_logging
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory, parse_ratelimit_headers
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import disable_progress_bars

from engine.publishing.publication import HubCommit
from templates.errors import RunError, StudioError
from templates.files import sha256_of_file
from templates.hub_address import check_hub_address

T = TypeVar("T")
Progress = Callable[[float, str], None]
Notice = Callable[[str], None]

_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CONFLICTS = (409, 412)
_NUM_ATTEMPTS = 3  # at the commit itself; each looks first at what the one before did
_LONGEST_NAME = 96
_WHO_SECONDS = 15.0


@dataclass(frozen=True)
class Patience:
    """How long a Hub that is slow, busy or gone is waited for.

    Attributes:
        connect_seconds: for a connection.
        answer_seconds: for the next bytes of an answer.
        pause_seconds: before the second try; twice as long before each further one.
        longest_pause_seconds: that the Hub may ask for.
        num_failures: this many in a row end the upload.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 120.0
    pause_seconds: float = 1.0
    longest_pause_seconds: float = 120.0
    num_failures: int = 6


def check_repo_id(repo_id: str) -> None:
    """Refuse a name that the Hub would not take, before anything is asked.

    Args:
        repo_id: such as "user/name".

    Raises:
        RunError: it is no name for a repository.
    """
    owner, slash, name = repo_id.partition("/")
    fix = "Give it as user/name, of letters a-z, digits, hyphens, dots and underscores"
    if not (owner and slash and name):
        raise RunError("A repository is named user/name", where=repr(repo_id), fix=fix)
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        what = "The Hub takes no repository of this name"
        if len(name) > _LONGEST_NAME or len(owner) > _LONGEST_NAME:
            what = f"The name is too long: {_LONGEST_NAME} characters are the most"
        elif "--" in repo_id or ".." in repo_id:
            what = 'The name holds "--" or "..", which the Hub does not take'
        raise RunError(what, where=repr(repo_id), fix=fix) from None


def check_token(token: str) -> str:
    """Refuse what cannot be a token, before anything is asked.

    Args:
        token: as it was pasted.

    Returns:
        The token without the spaces around it.

    Raises:
        RunError: there is none, or it holds a space or line break.
    """
    token = token.strip()
    if not token:
        raise RunError(
            "Publishing to the Hub needs a token that may write",
            fix="Make one at huggingface.co/settings/tokens, and give it in HF_TOKEN",
        )
    if not _TOKEN.fullmatch(token):
        raise RunError(
            "This is no token: it holds a space, a line break or an unusual letter",
            fix="Copy it once more, alone",
        )
    return token


def stored_login() -> str:
    """Read the token that `hf auth login` keeps; only where the person said so.

    Returns:
        The token, or "".
    """
    return get_token() or ""


def has_stored_login() -> bool:
    """Say whether `hf auth login` has left a token on this machine; it is not read.

    Returns:
        Whether there is one to ask the person about.
    """
    return Path(constants.HF_TOKEN_PATH).is_file()


@dataclass(frozen=True)
class TokenOwner:
    """Whose a token is.

    Attributes:
        name: of the account.
        groups: organisations it belongs to.
        may_write: False where the Hub says that it may only read.
    """

    name: str
    groups: tuple[str, ...]
    may_write: bool


def whose_token(token: str, *, endpoint: str | None = None) -> TokenOwner:
    """Ask the Hub whose a token is.

    Args:
        token: sent to the Hub and to nobody else.
        endpoint: address of the Hub; default: HF_ENDPOINT, or huggingface.co.

    Returns:
        Its owner.

    Raises:
        RunError: the Hub does not know it, or cannot be asked.
    """
    token = check_token(token)
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    check_hub_address(endpoint, RunError)
    again = "Look whether the network and the Hub are well, and try again"
    try:
        answer = httpx2.get(
            f"{endpoint}/api/whoami-v2",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_WHO_SECONDS,
        )
        if answer.status_code == httpx2.codes.OK:
            return _owner(answer.json())
    # `from None`: the library's errors hold the request, and with it the token.
    except httpx2.HTTPError as error:
        raise RunError(
            f"The Hub cannot be reached ({type(error).__name__})", where=endpoint, fix=again
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError("The Hub's answer could not be used", where=endpoint, fix=again) from None
    if answer.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        raise RunError(
            "The Hub does not know this token", fix="Copy it once more, or make a new one"
        )
    raise RunError(f"The Hub refused it (status {answer.status_code})", fix=again)


def _owner(me: Mapping[str, Any]) -> TokenOwner:
    role = me.get("auth", {}).get("accessToken", {}).get("role", "")
    groups = tuple(str(group["name"]) for group in me.get("orgs", ()))
    return TokenOwner(str(me["name"]), groups, role != "read")


def upload(
    folder: Path,
    repo_id: str,
    *,
    token: str,
    endpoint: str | None = None,
    private: bool = True,
    message: str = "Publish with Tuning Studio",
    progress: Progress = lambda _, __: None,
    notice: Notice = lambda _: None,
    patience: Patience = Patience(),
) -> HubCommit:
    """Put the files of a folder into a repository, with one commit.

    A repository that exists keeps its visibility and its other files. Where it holds these very
    files already, nothing is committed.

    Args:
        folder: all its files are published.
        repo_id: such as "user/name"; made if need be.
        token: of somebody who may write there; it is sent to the Hub and to nobody else.
        endpoint: address of the Hub; default: HF_ENDPOINT, or huggingface.co.
        private: whether only its owner may see it; a public one must be meant.
        message: title of the commit.
        progress: is told the share done and what is being done; from any thread, one at a time.
        notice: is told sentences that a person should read.
        patience: how long to wait for a Hub that is busy.

    Returns:
        Where it is.

    Raises:
        RunError: the name, token or rights do not do, the Hub cannot be reached, or somebody else
            changed the same files; nothing is half published.
    """
    check_repo_id(repo_id)
    token = check_token(token)
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    check_hub_address(endpoint, RunError)
    files = [_local_file(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise RunError("There is nothing to publish", where=folder.name, fix="Publish a run")
    told = _Told(progress, notice, sum(file.size_bytes for file in files))
    failures = _Failures(patience, told)
    with _only_lines(lambda: _Line(failures, told)), _in_words(repo_id, token):
        api = HfApi(endpoint=endpoint, token=token)
        return _Upload(api, failures, told, repo_id, private, message, files).run()


@dataclass(frozen=True)
class _File:
    """A local file, and what the Hub calls it where it holds the same."""

    name: str
    path: Path
    size_bytes: int
    sha256: str
    git_oid: str

    def is_at(self, remote: RepoFile | None) -> bool:
        if remote is None or remote.size != self.size_bytes:
            return False
        return (remote.lfs.sha256 if remote.lfs else remote.blob_id) in (self.sha256, self.git_oid)


def _local_file(folder: Path, path: Path) -> _File:
    size_bytes = path.stat().st_size
    git = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            git.update(block)
    name = path.relative_to(folder).as_posix()
    return _File(name, path, size_bytes, sha256_of_file(path), git.hexdigest())


class _Told:
    """Passes on what is told, one call at a time: files are sent by threads."""

    def __init__(self, progress: Progress, notice: Notice, total_bytes: int) -> None:
        self._progress, self._notice, self._lock = progress, notice, threading.Lock()
        self._total_bytes, self._sent_bytes = max(1, total_bytes), 0

    def progress(self, words: str) -> None:
        with self._lock:
            self._progress(min(1.0, self._sent_bytes / self._total_bytes), words)

    def notice(self, words: str) -> None:
        with self._lock:
            self._notice(words)

    def sent(self, num_bytes: int) -> None:
        self._sent_bytes += num_bytes
        done, whole = self._sent_bytes / 2**20, self._total_bytes / 2**20
        self.progress(f"sending, {min(done, whole):.1f} of {whole:.1f} MiB")


class _Counted(httpx2.SyncByteStream):
    """A body that tells how much of it went out."""

    def __init__(self, body: httpx2.SyncByteStream, told: _Told) -> None:
        self._body, self._told = body, told

    def __iter__(self) -> Iterator[bytes]:
        for block in self._body:
            yield block
            self._told.sent(len(block))


class _Failures:
    """Counts requests in a row that the Hub did not answer, and gives up when there are enough."""

    def __init__(self, patience: Patience, told: _Told) -> None:
        self.patience = patience
        self._told, self._num_failures, self._asked_pause_seconds = told, 0, 0

    def none(self) -> None:
        self._num_failures = self._asked_pause_seconds = 0

    def add(self, what: str, asked_pause_seconds: int = 0) -> None:
        self._num_failures += 1
        self._asked_pause_seconds = asked_pause_seconds
        if asked_pause_seconds > self.patience.longest_pause_seconds:
            raise RunError(
                f"{what} and asks to be left alone for {asked_pause_seconds} seconds",
                fix="Publish again after that; nothing is sent twice",
            )
        if self._num_failures >= self.patience.num_failures:
            raise RunError(
                f"{what}, {self._num_failures} times in a row",
                fix="Look whether the network and the Hub are well, and publish again; "
                "nothing is sent twice",
            )
        if self._num_failures == 1:
            pause = f" in {asked_pause_seconds} seconds" if asked_pause_seconds else ""
            self._told.notice(f"{what}; trying again{pause}.")

    def pause(self) -> None:
        """Wait before the next try, as long as the Hub asked for."""
        own_seconds = self.patience.pause_seconds * 2 ** max(0, self._num_failures - 1)
        time.sleep(max(own_seconds, self._asked_pause_seconds))


class _Line(httpx2.Client):
    """A connection to the Hub that has time limits and counts failures.

    The library's own has none, and would obey a busy Hub that asks for a day. This one also lacks
    the library's hook that forbids every request in an offline process: a worker is one, and this
    is the only way out of it.
    """

    def __init__(self, failures: _Failures, told: _Told) -> None:
        self._failures, self._told = failures, told
        patience = failures.patience
        timeout = httpx2.Timeout(patience.answer_seconds, connect=patience.connect_seconds)
        super().__init__(follow_redirects=True, timeout=timeout)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one request, and count whether it was answered.

        Args:
            request: from the library.
            **options: of httpx2.

        Returns:
            The answer, whatever its status.
        """
        if request.method == "PUT" and isinstance(request.stream, httpx2.SyncByteStream):
            request.stream = _Counted(request.stream, self._told)
        try:
            response = super().send(request, **options)
        except httpx2.TransportError as error:
            self._failures.add(f"The Hub does not answer ({type(error).__name__})")
            raise
        if response.status_code in _BUSY:
            what = f"The Hub is busy or ill (status {response.status_code})"
            self._failures.add(what, _asked_pause_seconds(response))
        else:
            self._failures.none()
        return response


def _asked_pause_seconds(response: httpx2.Response) -> int:
    retry_after = response.headers.get("Retry-After", "")
    limit = parse_ratelimit_headers(response.headers)
    asked = [int(retry_after)] if re.fullmatch(r"\d{1,9}", retry_after) else [0]
    return max(asked + ([limit.reset_in_seconds] if limit and not limit.remaining else []))


class _Upload:
    """One folder on its way into one repository."""

    def __init__(
        self,
        api: HfApi,
        failures: _Failures,
        told: _Told,
        repo_id: str,
        private: bool,
        message: str,
        files: list[_File],
    ) -> None:
        self._api, self._failures, self._told = api, failures, told
        self._repo_id, self._private, self._message = repo_id, private, message
        self._files = files

    def run(self) -> HubCommit:
        self._told.progress("asking the Hub who we are")
        self._check_rights()
        info = self._info()
        is_new = info is None and self._create()
        info = info or self._info()
        if info is None:
            raise RunError(
                "The name is taken by a repository that this token cannot see",
                where=self._repo_id,
                fix="Choose another name, or use a token that may see it",
            )
        try:
            self._check_visibility(bool(info.private))
            commit = self._commit(str(info.sha))
        except BaseException:  # a stop too
            if is_new:
                self._remove_empty(str(info.sha))
            raise
        return HubCommit(
            url=f"{self._api.endpoint}/{self._repo_id}",
            repo_id=self._repo_id,
            commit=commit,
            revision_parent=str(info.sha),
            is_new_repo=is_new,
            private=bool(info.private),
        )

    def _check_rights(self) -> None:
        me = self._ask(self._api.whoami)
        role = me.get("auth", {}).get("accessToken", {}).get("role", "")
        if role == "read":
            raise RunError(
                "This token may only read",
                fix="Make one that may write at huggingface.co/settings/tokens",
            )
        owner = self._repo_id.partition("/")[0]
        owners = [me["name"], *(group["name"] for group in me.get("orgs", ()))]
        if owner.casefold() not in {name.casefold() for name in owners}:
            raise RunError(
                f"This token does not belong to {owner}",
                where=self._repo_id,
                fix=f"Publish under {' or '.join(owners)}",
            )

    def _info(self) -> Any:
        try:
            return self._ask(lambda: self._api.model_info(self._repo_id))
        except RepositoryNotFoundError:
            return None

    def _create(self) -> bool:
        """Make the repository; False where somebody has just made it, or an answer was lost."""
        try:
            self._ask(lambda: self._api.create_repo(self._repo_id, private=self._private))
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            return False
        return True

    def _check_visibility(self, is_private: bool) -> None:
        if self._private and not is_private:
            raise RunError(
                "The repository is public, and this was to be private",
                where=self._repo_id,
                fix="Choose another name, or say that everybody may see it",
            )
        if is_private and not self._private:
            self._told.notice(
                f"{self._repo_id} is private and stays so; its settings on the Hub change that."
            )

    def _commit(self, head: str) -> str:
        before = remote = self._remote()
        for attempt in range(1, _NUM_ATTEMPTS + 1):
            if self._is_there(remote):
                break
            if attempt == 1:
                self._tell_what_is_there(remote)
            self._told.progress("sending")
            try:
                head = self._send_commit(head)
            except (HfHubHTTPError, httpx2.TransportError) as error:
                if not _may_help_to_look(error):
                    raise
                # The answer may be lost while the commit was made, or somebody else was faster.
                remote, head = self._look_again(before, error, attempt)
            else:
                remote = self._remote()
                if not self._is_there(remote):
                    raise RunError(
                        "The files on the Hub are not those that were sent",
                        where=self._repo_id,
                        fix="Look at the repository, and publish again",
                    )
                return head
        return str(self._ask(lambda: self._api.model_info(self._repo_id)).sha)

    def _look_again(
        self, before: Mapping[str, RepoFile], error: Exception, attempt: int
    ) -> tuple[Mapping[str, RepoFile], str]:
        self._failures.pause()
        head = str(self._ask(lambda: self._api.model_info(self._repo_id)).sha)
        remote = self._remote()
        if self._is_there(remote):
            return remote, head
        for file in self._files:
            if _oid(remote.get(file.name)) != _oid(before.get(file.name)):
                raise RunError(
                    f"Somebody else has just changed {file.name} there",
                    where=self._repo_id,
                    fix="Look at their version; publish again to replace it",
                )
        if attempt == _NUM_ATTEMPTS:
            raise error
        return remote, head

    def _send_commit(self, head: str) -> str:
        additions = [CommitOperationAdd(file.name, file.path) for file in self._files]
        done = self._api.create_commit(
            self._repo_id, additions, commit_message=self._message, parent_commit=head
        )
        return str(done.oid)

    def _remote(self) -> Mapping[str, RepoFile]:
        tree = self._ask(lambda: list(self._api.list_repo_tree(self._repo_id, recursive=True)))
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def _is_there(self, remote: Mapping[str, RepoFile]) -> bool:
        return all(file.is_at(remote.get(file.name)) for file in self._files)

    def _tell_what_is_there(self, remote: Mapping[str, RepoFile]) -> None:
        ours = {file.name for file in self._files}
        replaced = sorted(ours & remote.keys())
        others = sorted(remote.keys() - ours - {".gitattributes"})
        if replaced:
            self._told.notice(
                f"These files there get a new version: {', '.join(replaced)}. The old one stays in "
                "the history."
            )
        if others:
            self._told.notice(f"These files there stay as they are: {', '.join(others)}.")

    def _remove_empty(self, first: str) -> None:
        """Take back the repository that we made, if nobody has put anything into it."""
        try:
            if str(self._api.model_info(self._repo_id).sha) == first:
                self._api.delete_repo(self._repo_id)
        except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, StudioError):
            self._told.notice(
                f"The empty repository {self._repo_id} could not be removed again: delete it on "
                "the Hub, or publish again."
            )

    def _ask(self, question: Callable[[], T]) -> T:
        """Ask what may be asked twice, until there is an answer or the line gives up."""
        while True:
            try:
                return question()
            except httpx2.TransportError:
                self._failures.pause()
            except HfHubHTTPError as error:
                if error.response.status_code not in _BUSY:
                    raise
                self._failures.pause()


def _oid(remote: RepoFile | None) -> str:
    return "" if remote is None else remote.lfs.sha256 if remote.lfs else remote.blob_id


def _may_help_to_look(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (*_BUSY, *_CONFLICTS)
    return True


@contextmanager
def _only_lines(factory: Callable[[], _Line]) -> Iterator[None]:
    """Let the library use these connections, and say nothing by itself."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)  # it writes addresses that hold a signature
    disable_progress_bars()
    set_client_factory(factory)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        hub_logging.set_verbosity(verbosity)


@contextmanager
def _in_words(repo_id: str, token: str) -> Iterator[None]:
    """Turn what the library raises into sentences; the library's own words may hold anything."""
    try:
        yield
    except Exception as error:
        _raise_in_words(error, repo_id, token)


def _raise_in_words(error: Exception, repo_id: str, token: str) -> NoReturn:
    cause: BaseException | None = error
    while cause is not None:  # the library wraps what its threads raise
        if isinstance(cause, StudioError):
            raise cause from None
        if isinstance(cause, HfHubHTTPError | httpx2.TransportError):
            break
        cause = cause.__cause__ or cause.__context__
    again = "Publish again; nothing is sent twice"
    # `from None` everywhere: the library's errors hold the request, and with it the token.
    if isinstance(error, ValueError) and "metadata in README" in str(error):
        said = _plain(str(error).partition("\n")[2], token)
        raise RunError(
            f"The Hub does not take the model card{said}",
            where=repo_id,
            fix="Publish it under another title, and report it with the card",
        ) from None
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        said = _plain(cause.server_message or "", token)
        what, fix = {
            400: ("The Hub does not take these files", "Look at the card, and publish again"),
            401: ("The Hub does not know this token", "Copy it once more, or make a new one"),
            403: ("This token may not do that here", "Use a token that may write to this name"),
            404: ("The Hub has no such repository any more", again),
            409: ("The Hub is still busy with another change to this repository", again),
            412: ("Somebody else keeps changing this repository", again),
            413: ("The Hub finds the files too large", "Publish the adapter instead"),
        }.get(status, (f"The Hub refused it (status {status})", again))
        raise RunError(f"{what}{said}", where=repo_id, fix=fix) from None
    if isinstance(cause, httpx2.TransportError):
        raise RunError(
            f"The Hub cannot be reached ({type(cause).__name__})", where=repo_id, fix=again
        ) from None
    raise RunError(
        f"The Hub's answer could not be used ({type(error).__name__})", where=repo_id, fix=again
    ) from None


def _plain(said: str, token: str) -> str:
    """What the Hub said, as the end of a clause on one line."""
    words = " ".join(said.replace(token, "[the token]").split())[:200].rstrip(". ")
    return f": {words}" if words else ""
