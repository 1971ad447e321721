"""Archives that a stranger, a bad cable or another studio made."""

import io
import json
import random
import stat
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.jobs import Job
from engine.liveness import this_process
from studio.home import Home
from studio.jobs.requests import TrainRequest, read_request
from studio.runs import importing
from studio.runs.exporting import export_run
from studio.runs.importing import import_run
from templates.errors import RunError, StudioError
from templates.files import sha256_of_bytes

Files = dict[str, bytes]
MEGABYTE = b"\0" * (1 << 20)


@pytest.fixture(scope="module")
def exported(
    trained: tuple[Home, str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    """Zip files of the finished run and of the paused one."""
    home, *names = trained
    folder = tmp_path_factory.mktemp("exported")
    for name in names:
        export_run(home, Job(home.place("train") / name), folder / f"{name}.zip")
    return tuple((folder / f"{name}.zip").read_bytes() for name in names)


@pytest.fixture
def empty(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def unpacked(archive: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(archive)) as pack:
        return {name: pack.read(name) for name in pack.namelist()}


def packed(files: Files, entries: list[tuple[zipfile.ZipInfo, bytes]] | None = None) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as pack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a duplicate name
        for name, content in files.items():
            pack.writestr(name, content)
        for entry, content in entries or []:
            pack.writestr(entry, content)
    return target.getvalue()


def described(files: Files, **changes: Any) -> Files:
    """A manifest that fits the files, first; then changed."""
    manifest = json.loads(files["manifest.json"])
    rest = {name: content for name, content in files.items() if name != "manifest.json"}
    manifest["files"] = [
        {"name": name, "size_bytes": len(content), "sha256": sha256_of_bytes(content)}
        for name, content in rest.items()
    ]
    return {"manifest.json": json.dumps(manifest | changes).encode(), **rest}


def refusal(home: Home, archive: bytes, **options: Any) -> str:
    """The sentence; the home must be as before."""
    path = home.root.parent / "run.zip"
    path.write_bytes(archive)
    with pytest.raises(StudioError) as caught:
        import_run(home, path, **options)
    left = [
        found
        for found in home.root.rglob("*")
        if found.is_file() and "ds-" not in str(found) and found.parent.name != "locks"
    ]
    assert not left and not list(home.root.glob(".*")), "nothing is left behind"
    return str(caught.value)


def with_entry(name: str, *, mode: int = 0, flags: int = 0) -> Callable[[Files], bytes]:
    def make(files: Files) -> bytes:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive = packed(files, [(entry, b"x")])
        if flags:
            place = archive.rindex(b"PK\x01\x02") + 8
            archive = archive[:place] + bytes([flags]) + archive[place + 1 :]
        return archive

    return make


def manifest(**changes: Any) -> Callable[[Files], bytes]:
    return lambda files: packed(described(files, **changes))


def as_link(files: Files) -> bytes:
    content = files.pop("dataset/test.jsonl")
    entry = zipfile.ZipInfo("dataset/test.jsonl")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return packed(files, [(entry, content)])


def stated(size_bytes: int) -> Callable[[Files], bytes]:
    def make(files: Files) -> bytes:
        content = json.loads(files["manifest.json"])
        content["files"][0]["size_bytes"] = size_bytes
        return packed(files | {"manifest.json": json.dumps(content).encode()})

    return make


def packed_with_bzip2(files: Files) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_BZIP2) as pack:
        for name, content in files.items():
            pack.writestr(name, content)
    return target.getvalue()


NO_SUCH_FILE = "An export holds no such file: "
FORGED: list[tuple[str, Callable[[Files], bytes], str]] = [
    ("empty", lambda files: b"", "This is no export of a run, or only a part of one"),
    ("text", lambda files: b"a,b\n1,2\n", "This is no export of a run, or only a part of one"),
    ("half", lambda files: packed(files)[:5000], "This is no export of a run, or only a part"),
    ("no file", lambda files: packed({}), "it does not begin with manifest.json"),
    ("another zip", lambda files: packed({"a": b""}), "it does not begin with manifest.json"),
    ("long manifest", lambda files: packed({"manifest.json": b" " * (5 << 20)}), "far too long"),
    ("deep manifest", lambda files: packed({"manifest.json": b"[" * 9**6}), "cannot be read"),
    ("list manifest", lambda files: packed({"manifest.json": b"[]"}), "cannot be read"),
    ("no version", lambda files: packed({"manifest.json": b"{}"}), "cannot be read"),
    ("newer", manifest(version=2, more=1),
     "made by a newer studio (version 2 of its layout) (run.zip). Update the studio, and import"),
    ("a field too much", manifest(more=1), "there is no setting called 'more'"),
    ("negative size", stated(-1), "greater than or equal to 0"),
    ("slip", with_entry("../../evil.sh"), NO_SUCH_FILE + "'../../evil.sh'"),
    ("slip inside", with_entry("dataset/../../evil"), NO_SUCH_FILE),
    ("absolute", with_entry("/etc/cron.d/evil"), NO_SUCH_FILE + "'/etc/cron.d/evil'"),
    ("drive", with_entry("C:\\evil"), NO_SUCH_FILE),
    ("backslash", with_entry("dataset\\..\\evil"), NO_SUCH_FILE),
    ("folder", with_entry("dataset/"), NO_SUCH_FILE),
    ("job lock", with_entry("job/lock"), NO_SUCH_FILE),
    ("no number", with_entry("job/attempts/x/events.jsonl"), NO_SUCH_FILE),
    ("link", as_link, "dataset/test.jsonl is a link or another special file"),
    ("device", with_entry("dataset/x", mode=stat.S_IFCHR), "dataset/x is a link or another"),
    ("locked", with_entry("dataset/x", flags=1), "dataset/x is packed or locked in an unknown way"),
    ("bzip2", packed_with_bzip2, "is packed or locked in an unknown way"),
    ("twice", with_entry("job/request.json"), "The archive holds a file twice"),
    ("two spellings", with_entry("dataset/TEST.jsonl"), "The archive holds a file twice"),
    ("additional", with_entry("dataset/evil"),
     "The archive holds dataset/evil, which its manifest does not name"),
    ("missing", lambda files: packed({n: c for n, c in files.items() if n != "job/metrics.csv"}),
     "The archive lacks job/metrics.csv"),
    ("another size", stated(7), "has another size than the manifest says"),
    ("changed", lambda files: packed(files | {"job/metrics.csv": files["job/metrics.csv"][::-1]}),
     "job/metrics.csv is not what was exported"),
    ("ids", manifest(job_id="../jobs"), "ids are not those of a run and its data"),
    ("other kind", manifest(job_id="compare-1"), "ids are not those of a run and its data"),
    ("dataset id", manifest(dataset_id="ds-../x"), "ids are not those of a run and its data"),
    ("other data", manifest(dataset_id="ds-1"), "is not what the run learned from"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "sentence"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED]
)
def test_a_forged_or_damaged_archive_is_refused(
    empty: Home, exported: tuple[bytes, bytes], make: Callable[[Files], bytes], sentence: str
) -> None:
    found = refusal(empty, make(unpacked(exported[1])))
    assert sentence in found and "run.zip" in found
    assert not list(empty.place("dataset").iterdir())


def event(**values: Any) -> bytes:
    line = {"at": 1.7e9, "monotonic_seconds": 1.0, **values}
    return json.dumps(line).encode() + b"\n"


def own_process() -> bytes:
    process = this_process()
    return event(
        event="Launched", pid=process.pid, process_started=process.started,
        boot_id=process.boot_id, memory_kills=10**9,
    )  # fmt: skip


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], Files]:
    return lambda files: described(files | {name: change(files[name])})


def told(line: bytes) -> Callable[[Files], Files]:
    return changed("job/attempts/1/events.jsonl", lambda content: content + line)


NOT_REPORTED = "The run's events are not what a run reports"
CONSISTENT: list[tuple[str, Callable[[Files], Files], str]] = [
    ("no request", changed("job/request.json", lambda content: b"{}"), "There is no such run"),
    ("deep request", changed("job/request.json", lambda content: b"[" * 9**6), "no such run"),
    ("a sweep's path", changed("job/request.json", lambda c: c.replace(
        b'"sweep_id": ""', b'"sweep_id": "sweep-/../../x"')), "sweep_id"),
    ("unwritable request", changed("job/request.json", lambda c: c.replace(
        b'"sweep_id": ""', b'"sweep_id": "sweep-1"').replace(b'"key": ""', b'"key": "\\ud800"')),
     "cannot be read"),
    ("other kind", changed("job/request.json", lambda c: c.replace(b'"train"', b'"fetch"')),
     "base is missing"),
    ("newer request", changed("job/request.json", lambda c: c.replace(b'n": 2\n', b'n": 3\n')),
     "made by a newer studio"),
    ("other plan", changed("job/request.json", lambda c: c.replace(b"ds-tickets", b"ds-ticketz")),
     "The data in the archive is not what the run learned from"),
    ("other rows", changed("dataset/train.jsonl", lambda content: content + b"\n"),
     "The prepared data changed since it was prepared"),
    ("a process of ours", lambda files: told(own_process())(
        files | {"job/attempts/1/events.jsonl": b""}),
     "The archive names a process of this machine as its worker"),
    ("words as numbers", told(event(event="Stopped", step="many")), NOT_REPORTED),
    ("no number", told(b'{"event":"Stopped","at":1,"step":1,"best_loss":NaN}\n'), NOT_REPORTED),
    ("hidden from lines", told(b'{"event":"Stopped","at":1,\r"step":"many"}\n'), NOT_REPORTED),
    ("an endless line", told(b"[" * (2 << 20)), NOT_REPORTED),
    ("torn lines only", told(b"\n" * 20_000), NOT_REPORTED),
    ("no date", told(event(event="Stopped", step=1, at=1e300)), NOT_REPORTED),
    ("damaged weights", changed("job/checkpoints/step-00000011/learned.safetensors",
                                lambda content: content[::-1]), ""),
    ("a state of words", changed("job/checkpoints/step-00000011/state.json",
                                 lambda content: b'{"best_step": "../.."}'), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in CONSISTENT], ids=[case[0] for case in CONSISTENT]
)
def test_an_archive_with_a_fitting_manifest_is_still_not_believed(
    empty: Home, exported: tuple[bytes, bytes], change: Callable[[Files], Files], sentence: str
) -> None:
    files = change(unpacked(exported[1]))
    if sentence:
        assert sentence in refusal(empty, packed(files))
    else:  # the older checkpoint is sound: the run goes on from there
        path = empty.root.parent / "run.zip"
        path.write_bytes(packed(files))
        assert import_run(empty, path).status().state == "stopped"


def test_a_finished_run_without_weights_is_refused(
    empty: Home, exported: tuple[bytes, bytes]
) -> None:
    files = {n: c for n, c in unpacked(exported[0]).items() if "checkpoints" not in n}
    assert "holds no weights of its finished run" in refusal(empty, packed(described(files)))


def test_a_bomb_is_refused_before_it_is_unpacked(
    empty: Home, exported: tuple[bytes, bytes]
) -> None:
    files = described(unpacked(exported[1]) | {"dataset/bomb": b"\0" * 20_000_000})
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in files.items():
            pack.writestr(name, content)
    archive = target.getvalue()
    assert len(archive) < 1_000_000
    found = refusal(empty, archive, limit_bytes=10_000_000)
    assert "Unpacked it would take 0.0" in found and "there is room for 0.010 GB" in found


@pytest.mark.parametrize(
    ("name", "size_bytes"),
    [
        ("job/attempts/1/events.jsonl", 600 << 20),
        ("job/metrics.csv", 600 << 20),
        ("job/request.json", 65 << 20),
        ("dataset/dataset.json", 65 << 20),
        ("dataset/else", 600 << 20),
    ],
)
def test_a_file_that_will_be_held_in_memory_has_a_limit_of_its_own(
    empty: Home, exported: tuple[bytes, bytes], name: str, size_bytes: int
) -> None:
    files = unpacked(exported[1])
    content = json.loads(files.pop("manifest.json"))
    content["files"] = [file for file in content["files"] if file["name"] != name]
    content["files"].append({"name": name, "size_bytes": size_bytes, "sha256": "0" * 64})
    files.pop(name, None)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as pack:
        for other, data in {"manifest.json": json.dumps(content).encode(), **files}.items():
            pack.writestr(other, data)
        with pack.open(name, "w") as place:
            for _ in range(size_bytes >> 20):
                place.write(MEGABYTE)
    assert refusal(empty, target.getvalue()) == (
        f"{name} is far too long (run.zip). Export the run again, and copy the file whole."
    )


def test_weights_and_examples_have_no_limit_but_the_room() -> None:
    for name in ("job/checkpoints/step-00000001/learned.safetensors", "dataset/train.jsonl"):
        assert importing._most_bytes(name) == float("inf")


def test_long_events_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = event(event="Failed", what="x" * 100_000, fix="")
    path.write_bytes(line * 200)
    tracemalloc.start()
    try:
        assert importing._are_plausible(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_run_of_a_sweep_comes_without_it(empty: Home, exported: tuple[bytes, bytes]) -> None:
    def join(content: bytes) -> bytes:
        request = json.loads(content)
        request["request"]["sweep_id"] = "sweep-1"
        return json.dumps(request).encode()

    files = unpacked(exported[1])
    path = empty.root.parent / "run.zip"
    path.write_bytes(packed(changed("job/request.json", join)(files)))
    imported = import_run(empty, path)
    request = read_request(imported)
    assert isinstance(request, TrainRequest) and request.sweep_id == ""
    assert (imported.folder / "request.json").read_bytes() == files["job/request.json"]


def test_a_bomb_that_lies_about_its_size_is_cut_off(
    empty: Home, exported: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the zip library to give more than declared, the reader would still stop."""
    endless = iter(lambda: b"\0" * 1000, b"")
    monkeypatch.setattr(importing, "_chunks", lambda pack, name, path: endless)
    assert "is not what was exported" in refusal(empty, exported[0])


def test_a_bomb_that_declares_less_in_both_places_gives_no_more_than_that(
    empty: Home, exported: tuple[bytes, bytes]
) -> None:
    files = unpacked(exported[1]) | {"dataset/bomb": b"\0" * 5_000_000}
    files = described(files)
    content = json.loads(files["manifest.json"])
    for file in content["files"]:
        if file["name"] == "dataset/bomb":
            file |= {"size_bytes": 10, "sha256": sha256_of_bytes(b"\0" * 10)}
    files["manifest.json"] = json.dumps(content).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    archive = target.getvalue().replace((5_000_000).to_bytes(4, "little"), b"\x0a\0\0\0")
    assert "dataset/bomb is damaged" in refusal(empty, archive)


def test_other_data_of_the_same_name_is_not_replaced(
    home: Home, finished: Job, exported: tuple[bytes, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "other" / "datasets" / "ds-tickets"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    (tmp_path / "run.zip").write_bytes(exported[0])
    with pytest.raises(RunError) as caught:
        import_run(Home(tmp_path / "other"), tmp_path / "run.zip")
    assert str(caught.value) == (
        "Other data of the same name is here already (ds-tickets). "
        "Import it with another STUDIO_HOME."
    )
    assert (folder / "dataset.json").read_text() == "{}"
    assert not list((tmp_path / "other" / "jobs").iterdir())


def test_one_import_at_a_time_and_what_a_kill_left_goes(
    empty: Home, exported: tuple[bytes, bytes], tmp_path: Path
) -> None:
    (tmp_path / "run.zip").write_bytes(exported[0])
    (empty.place("train").parent / ".import.tmp" / "job").mkdir(parents=True)

    def again(share: float, words: str) -> None:
        with pytest.raises(RunError, match=r"Another import is under way .*\. Wait until it ends"):
            import_run(empty, tmp_path / "run.zip")

    assert import_run(empty, tmp_path / "run.zip", progress=again).status().state == "finished"
    assert not (empty.root / ".import.tmp").exists()


def test_there_must_be_a_file(empty: Home, tmp_path: Path) -> None:
    for place in (tmp_path / "nothing.zip", tmp_path):
        with pytest.raises(RunError) as caught:
            import_run(empty, place)
        assert str(caught.value) == (
            f"There is no such file, or it may not be read ({place}). "
            "Name a file that the export verb wrote."
        )


def test_any_flipped_bytes_give_a_sentence_or_the_same_run(
    exported: tuple[bytes, bytes], tmp_path: Path
) -> None:
    whole = unpacked(exported[1])
    generator = random.Random(7)
    refused = 0
    for number in range(80):
        archive = bytearray(exported[1])
        # The directory at the end is where a flip does most; elsewhere a hash notices.
        start = len(archive) - 2500 if number % 2 else 0
        for _ in range(generator.randint(1, 3)):
            archive[generator.randrange(start, len(archive))] ^= 1 << generator.randrange(8)
        path, home = tmp_path / "run.zip", Home(tmp_path / f"home{number}")
        path.write_bytes(archive)
        try:
            job = import_run(home, path)
        except StudioError:
            refused += 1
            continue
        for name, content in whole.items():
            if name.startswith("job/"):
                assert (job.folder / name[4:]).read_bytes() == content
    assert refused > 40
