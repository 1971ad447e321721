from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from studio.screen import out_of_memory, say_table, verb
from templates.errors import DataError


def run(error: BaseException, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()

    def fail(json: bool = False) -> None:
        raise error

    app.command()(verb(fail))
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("What", where="row 3", fix="Mend it"), 1, "What (row 3). Mend it."),
        (MemoryError(), 1, "memory of this machine is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "micro_batch_tokens"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "micro_batch_tokens"),
        (KeyboardInterrupt(), 130, "Stopped"),
        (ValueError("odd"), 70, "did not foresee (ValueError)"),
    ],
)
def test_every_failure_is_one_sentence(
    error: BaseException, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    found, text = run(error)
    assert found == code and words in text and "Traceback" not in text
    assert text.strip().count("\n") == 0
    found, text = run(error, "--json")
    assert found == code and text.startswith('{"error"')


def test_a_home_that_cannot_be_written_still_gives_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "file"))
    code, text = run(ValueError("odd"))
    assert code == 70 and "Report it with what you did" in text and "Traceback" not in text


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    assert out_of_memory(RuntimeError("shapes differ")) is None


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say_table("A [bold]title", ("name", "value"), [("[red]x", "1.5")])
    shown = capsys.readouterr().out
    assert "A [bold]title" in shown and "[red]x" in shown
