"""Which bases there are: read from real folders, and asked from a server over real HTTP."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from huggingface_hub import constants

from engine import bases
from engine.base_model import locate_base
from engine.bases import (
    RECOMMENDED,
    BaseCard,
    find_base,
    installed_bases,
    offered_bases,
    search_hub,
)
from engine.model_folder import MODEL_FILES, is_hub_id
from templates.errors import PlanError
from tests.engine.tiny import CONTEXT, save_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_token_for_members"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model", "gpt2", chat=True)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A model folder below a root, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "root" / "mine"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def only(root: Path, cache: Path | None = None) -> BaseCard:
    """The one card beside the starter's."""
    _, card = installed_bases([root], cache_folder=cache or root / "no-cache")
    return card


def cached(cache: Path, source: Path, name: str, commit: str = COMMIT) -> Path:
    """Put a model into a cache as huggingface_hub does: links to blobs."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    for file in source.iterdir():
        shutil.copy(file, repository / "blobs" / f"{commit[:4]}{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/{commit[:4]}{file.name}")
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def test_the_starter_is_always_there(tmp_path: Path) -> None:
    (card,) = installed_bases(cache_folder=tmp_path)
    assert card.reference == "starter" and card.source == "ships with the studio"
    assert card.num_parameters == 9_441_408 and card.context_tokens == 1024
    assert card.licence == "cc-by-4.0" and card.has_chat_template is False and not card.problem


def test_a_model_folder_is_told_from_its_files(model: Path) -> None:
    card = only(model.parent)
    assert card.reference == str(model) and card.title == "mine"
    assert card.source == "local folder" and card.is_downloaded and not card.problem
    assert card.architecture == "GPT2LMHeadModel" and card.context_tokens == CONTEXT
    assert card.has_chat_template and card.licence == ""
    sizes = [file.stat().st_size for kind in MODEL_FILES for file in model.glob(kind)]
    assert card.download_bytes == sum(sizes)
    located = locate_base(card.reference)
    assert located.path == model
    layer = 4 * 32 * 32 + 4 * 32 + 8 * 32 * 32 + 5 * 32 + 4 * 32
    assert card.num_parameters == 320 * 32 + CONTEXT * 32 + 2 * layer + 2 * 32


DAMAGES: dict[str, tuple[Any, str]] = {
    "remote code": (
        lambda folder: change(folder / "config.json", auto_map={"AutoModel": "x.Y"}), "own code",
    ),
    "remote tokenizer": (
        lambda folder: change(folder / "tokenizer_config.json", auto_map={"a": "b"}), "own code",
    ),
    "pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pickle",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
    "encoder-decoder": (
        lambda folder: change(folder / "config.json", is_encoder_decoder=True), "continues text",
    ),
    "classifier": (
        lambda folder: change(folder / "config.json", architectures=["BertForMaskedLM"]),
        "continues text",
    ),
    "quantised": (
        lambda folder: change(folder / "config.json", quantization_config={"bits": 4}),
        "quantised already",
    ),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "a list": (lambda folder: (folder / "config.json").write_text("[1]"), "config.json"),
    "deep": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json"),
    "not text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "config"),
    "huge config": (
        lambda folder: os.truncate(folder / "config.json", 9 << 20), "config.json is too large",
    ),
    "cut weights": (
        lambda folder: os.truncate(folder / "model.safetensors", 30_000), "not whole",
    ),
    "cut header": (lambda folder: os.truncate(folder / "model.safetensors", 20), "not whole"),
    "empty weights": (lambda folder: os.truncate(folder / "model.safetensors", 0), "not whole"),
    "huge header": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x3f" + b"{}"),
        "not whole",
    ),
    "odd header": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (2).to_bytes(8, "little") + b"[]"
        ),
        "not whole",
    ),
    "negative shape": (
        lambda folder: write_header(folder, {"a": {"shape": [-1], "data_offsets": [0, 0]}}),
        "not whole",
    ),
    "endless shape": (
        lambda folder: write_header(folder, {"a": {"shape": [2**40] * 3, "data_offsets": [0, 0]}}),
        "not whole",
    ),
    "index outside": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "../../secret.safetensors"}}'
        ),
        "index names",
    ),
    "a shard lacks": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'
        ),
        "index names",
    ),
    "a pipe": (
        lambda folder: ((folder / "tokenizer.json").unlink(), os.mkfifo(folder / "tokenizer.json")),
        "not a plain file",
    ),
    "a link outside": (
        lambda folder: (folder / "extra.json").symlink_to("/etc/hostname"), "lies elsewhere",
    ),
    "a broken link": (lambda folder: (folder / "more.safetensors").symlink_to("gone"), "missing"),
}  # fmt: skip


def write_header(folder: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_cannot_be_used_says_why(model: Path, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(model)
    card = only(model.parent)
    assert words in card.problem and card.problem.endswith("."), card
    with pytest.raises(PlanError):
        find_base(card.reference, [card])


def test_a_root_is_searched_three_levels_down_and_never_left(tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(tiny, root / "a" / "b" / "third")
    shutil.copytree(tiny, root / "a" / "b" / "c" / "fourth")
    shutil.copytree(tiny, root / ".hidden")
    shutil.copytree(tiny, tmp_path / "outside")
    (root / "way-out").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "inside").symlink_to(root / "a" / "b" / "third")
    os.mkfifo(root / "pipe")
    (root / "piped").mkdir()
    os.mkfifo(root / "piped" / "config.json")
    (root / "linked").mkdir()
    (root / "linked" / "config.json").symlink_to(tmp_path / "outside" / "config.json")
    titles = {card.title for card in installed_bases([root], cache_folder=tmp_path / "none")[1:]}
    assert titles == {"third", "inside"}
    assert len(installed_bases([tmp_path / "nowhere", tmp_path / "outside" / "config.json"],
                               cache_folder=tmp_path / "none")) == 1  # fmt: skip
    itself = only(tmp_path / "outside")  # the root may be a model folder
    assert itself.title == "outside" and not itself.problem


def test_many_folders_do_not_take_for_ever(tiny: Path, tmp_path: Path) -> None:
    for number in range(bases._MOST_CARDS + 5):
        folder = tmp_path / "root" / f"{number:04}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    found = installed_bases([tmp_path / "root"], cache_folder=tmp_path / "none")
    assert len(found) == bases._MOST_CARDS


def test_downloaded_models_are_found_in_the_cache(tiny: Path, tmp_path: Path) -> None:
    cached(tmp_path, tiny, "org/whole")
    cached(tmp_path, tiny, "org/whole", "f" * 40)
    (tmp_path / "models--org--whole" / "refs" / "main").write_text(COMMIT)
    partly = cached(tmp_path, tiny, "org/partly")
    (partly / "model.safetensors").unlink()
    cached(tmp_path, tiny, "short")
    (tmp_path / "datasets--org--whole" / "snapshots" / COMMIT).mkdir(parents=True)
    (tmp_path / "models--org--empty").mkdir()
    (tmp_path / "models--org--piped" / "refs").mkdir(parents=True)
    os.mkfifo(tmp_path / "models--org--piped" / "refs" / "main")
    (tmp_path / "models--org--piped" / "snapshots" / COMMIT).mkdir(parents=True)
    cards = {card.title: card for card in installed_bases(cache_folder=tmp_path)[1:]}
    assert cards.keys() == {"org/whole", "org/partly", "org/piped", "short"}
    whole = cards["org/whole"]
    assert whole.reference == "org/whole" and whole.revision == COMMIT and not whole.problem
    assert whole.source == "on this machine" and whole.is_downloaded
    assert "no .safetensors" in cards["org/partly"].problem
    assert "whole name" in cards["short"].problem
    assert "config.json" in cards["org/piped"].problem


def test_what_is_recommended_is_small_open_and_explained() -> None:
    assert 8 <= len(RECOMMENDED) <= 12
    sizes = [card.num_parameters or 0 for card in RECOMMENDED]
    assert sizes == sorted(sizes) and sizes[-1] < 2e9
    for card in RECOMMENDED:
        assert is_hub_id(card.reference) and card.licence and card.note.endswith(".")
        # Weights are kept in two or four bytes each, and the tokenizer comes with them.
        assert 1.9 < (card.download_bytes or 0) / (card.num_parameters or 1) < 4.6
        assert card.is_gated == (card.licence in ("gemma", "llama3.2"))


def test_the_picker_does_not_offer_a_download_twice(tiny: Path, tmp_path: Path) -> None:
    name = RECOMMENDED[1].reference
    cached(tmp_path, tiny, name)
    partly = cached(tmp_path, tiny, RECOMMENDED[2].reference)
    (partly / "config.json").unlink()
    offered = offered_bases(installed_bases(cache_folder=tmp_path))
    assert [card.source for card in offered if card.reference == name] == ["on this machine"]
    again = [card.source for card in offered if card.reference == RECOMMENDED[2].reference]
    assert again == ["on this machine", "recommended"]  # to be downloaded again
    assert find_base(RECOMMENDED[2].reference, offered).source == "recommended"


@pytest.mark.parametrize("reference", ["", "/etc", "../root", "org/unknown", "Starter"])
def test_a_base_that_was_not_offered_is_refused(tmp_path: Path, reference: str) -> None:
    offered = offered_bases(installed_bases(cache_folder=tmp_path))
    with pytest.raises(PlanError, match="not in the list"):
        find_base(reference, offered)
    assert find_base("starter", offered).title == "Starter"


GOOD = {
    "id": "org/good", "sha": COMMIT, "gated": "manual", "downloads": 12345,
    "tags": ["safetensors"], "safetensors": {"parameters": {"BF16": 100, "F32": 10}, "total": 110},
    "cardData": {"license": "apache-2.0"}, "somethingNew": {"x": 1},
    "config": {"architectures": ["LlamaForCausalLM"], "tokenizer_config": {"chat_template": "x"}},
}  # fmt: skip


@contextmanager
def hub(body: bytes, status: int = 200, pause_seconds: float = 0) -> Iterator[tuple[str, list]]:
    """A server that gives one answer; with a pause it drips the answer byte by byte."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for byte in body if pause_seconds else [body]:
                    time.sleep(pause_seconds)
                    self.wfile.write(bytes([byte]) if pause_seconds else body)
            except OSError:
                pass  # the client has had enough

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_the_hub_is_searched(online: None) -> None:
    items = [
        GOOD,
        {**GOOD, "id": "org/code", "tags": ["custom_code", "safetensors"]},
        {**GOOD, "id": "org/pickle", "tags": [], "safetensors": None, "gated": False},
        {**GOOD, "id": "org/t5", "config": {"is_encoder_decoder": True}},
        {**GOOD, "id": "../../etc"}, {**GOOD, "id": 7}, {"no": "id"}, None, "x",
        {"id": "org/bare"},
    ]  # fmt: skip
    with hub(json.dumps(items).encode()) as (address, asked):
        found = search_hub(" smol lm ", token=TOKEN, endpoint=address, limit=5)
        search_hub("x", endpoint=address)
    by_name = {card.reference: card for card in found}
    assert by_name.keys() == {"org/good", "org/code", "org/pickle", "org/t5", "org/bare"}
    good = by_name["org/good"]
    assert good.source == "found on the Hub" and not good.problem and not good.is_downloaded
    assert good.num_parameters == 110 and good.download_bytes == 240 and good.is_gated
    assert good.licence == "apache-2.0" and good.revision == COMMIT and good.has_chat_template
    assert good.note == "12,345 downloads in a month."
    assert (
        "own code" in by_name["org/code"].problem and "safetensors" in by_name["org/pickle"].problem
    )
    assert by_name["org/pickle"].is_gated is False and "continues" in by_name["org/t5"].problem
    assert by_name["org/bare"].is_gated is None and by_name["org/bare"].num_parameters is None
    query = parse_qs(urlsplit(asked[0][0]).query)
    assert query["search"] == ["smol lm"] and query["pipeline_tag"] == ["text-generation"]
    assert query["limit"] == ["5"] and "safetensors" in query["expand"]
    assert asked[0][1] == f"Bearer {TOKEN}" and asked[1][1] == ""
    assert TOKEN not in asked[0][0]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"<html>", 200, "cannot be read"),
        (b"17", 200, "cannot be read"),
        (b"[" * 100_000, 200, "cannot be read"),
        (b" " * (9 << 20), 200, "cannot be read"),
        (b"\xff", 200, "cannot be read"),
        (b"{}", 401, "does not accept the token"),
        (b"{}", 403, "does not accept the token"),
        (b"{}", 429, "did not answer"),
        (b"{}", 500, "did not answer"),
    ],
    ids=["html", "number", "deep", "huge", "not text", "401", "403", "429", "500"],
)
def test_a_bad_answer_of_the_hub_is_one_sentence(
    online: None, body: bytes, status: int, words: str
) -> None:
    with hub(body, status) as (address, _), pytest.raises(PlanError, match=words) as raised:
        search_hub("x", token=TOKEN, endpoint=address)
    assert "on this machine" in raised.value.fix and TOKEN not in str(raised.value)


def test_a_slow_hub_is_not_waited_for(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "_HUB_SECONDS", 0.3)
    started = time.monotonic()
    with (
        hub(b" " * 1000, pause_seconds=0.05) as (address, _),
        pytest.raises(PlanError, match="cannot be reached"),
    ):
        search_hub("x", endpoint=address)
    assert time.monotonic() - started < 5


def test_without_a_network_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_offline, endpoint in ((False, "http://127.0.0.1:9"), (True, None), (False, "no scheme")):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        with pytest.raises(PlanError) as raised:
            search_hub("x", endpoint=endpoint)
        assert "choose a base on this machine" in raised.value.fix


def test_a_token_is_not_sent_in_the_clear(online: None) -> None:
    with pytest.raises(PlanError, match="not a safe one"):
        search_hub("x", token=TOKEN, endpoint="http://mirror.invalid")
    with pytest.raises(PlanError, match="cannot be reached"):
        search_hub("x", endpoint="http://mirror.invalid")
