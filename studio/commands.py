"""What a page did, as a line for a terminal: `python app.py …`, ready to be copied.

Only what differs from a default is written. No token is ever part of a line.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.planning.choices import EstimateRequest
from engine.publishing.publication import Form

# They follow the base and the memory, so the method's own value says nothing about them.
_NO_FIXED_DEFAULT = ("learning_rate", "micro_batch_tokens")


def upload_command(
    file: Path,
    *,
    name: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    has_header: bool | None = None,
    sheet: str | None = None,
) -> str:
    """Write the line that reads a table.

    Args:
        file: the table, as the person calls it.
        name: a label.
        delimiter: between cells, if it was corrected.
        encoding: of the text, if it was corrected.
        has_header: whether the first row holds the names, if that is not to be found out.
        sheet: of a workbook; None: the first with rows.

    Returns:
        One line.
    """
    separator = "tab" if delimiter == "\t" else delimiter
    return _line(
        "upload", str(file), name=name, delimiter=separator, encoding=encoding, sheet=sheet,
        header=has_header or None, no_header=has_header is False or None,
    )  # fmt: skip


def prepare_command(upload_id: str, recipe_file: Path | None = None, base: str = "starter") -> str:
    """Write the line that prepares data.

    Args:
        upload_id: the table.
        recipe_file: the recipe that the page gives to download; None: the proposed one.
        base: whose tokenizer checks the data.

    Returns:
        One line.
    """
    return _line("prepare", upload_id, recipe=recipe_file, base=_unless(base, "starter"))


def plan_command(choices: EstimateRequest, described: Mapping[str, Any] | None = None) -> str:
    """Write the line that makes a plan.

    Args:
        choices: as the page sends them to the engine.
        described: the engine's answer to "methods"; with it, values that are a default are left
            out.

    Returns:
        One line.
    """
    pairs = [
        ("--option", f"{name}={_text(value)}") for name, value in _changed(choices, described or {})
    ]
    return _line(
        "plan",
        choices.dataset_folder.name,
        *pairs,
        method=_unless(choices.method, "lora"),
        base=_unless(choices.base, "starter"),
        revision=choices.revision or None,
        precision=choices.precision,
        seed=_unless(choices.seed, 0),
    )


def train_command(plan_id: str, *, resume: str | None = None) -> str:
    """Write the line that trains.

    Args:
        plan_id: the plan.
        resume: a run to go on with instead.

    Returns:
        One line.
    """
    return _line("train", None if resume else plan_id, resume=resume)


def compare_command(run_id: str, *, seed: int = 0, max_new_tokens: int = 0) -> str:
    """Write the line that compares.

    Args:
        run_id: the tuned model.
        seed: fixes the demonstrations that are tried.
        max_new_tokens: longest answer; 0: a little more than in training.

    Returns:
        One line.
    """
    tokens = _unless(max_new_tokens, 0)
    return _line("compare", run_id, seed=_unless(seed, 0), max_new_tokens=tokens)


def try_command(run_id: str, texts: Mapping[str, str]) -> str:
    """Write the line that tries a text.

    Args:
        run_id: the tuned model.
        texts: by slot, or what the user says; the first one stands alone.

    Returns:
        One line.
    """
    (_, text), *others = texts.items()
    fields = [("--field", f"{name}={other}") for name, other in others]
    return _line("try", text, *fields, run=run_id)


def inside_command(run_id: str) -> str:
    """Write the line that shows as a file what tuning changed.

    Args:
        run_id: the tuned model.

    Returns:
        One line.
    """
    return _line("jobs inside", run_id, to="inside.html")


def predict_command(run_id: str, table: Path) -> str:
    """Write the line that answers the rows of a table.

    Args:
        run_id: the tuned model.
        table: the file, as the person calls it.

    Returns:
        One line.
    """
    return _line("predict", str(table), run=run_id)


def publish_command(
    run_id: str,
    to: Path | None = None,
    *,
    form: Form | None = None,
    name: str | None = None,
    zipped: bool = False,
    repo_id: str | None = None,
    private: bool = True,
) -> str:
    """Write the line that publishes into a folder, to the Hub, or both.

    Args:
        run_id: the tuned model.
        to: the new folder; None: one of the studio's own.
        form: adapter or merged model; None: the adapter, where there is one.
        name: title on the model card.
        zipped: whether to write a zip too.
        repo_id: where on the Hub, such as user/name; the token is read in HF_TOKEN.
        private: whether only its owner may see it there.

    Returns:
        One line.
    """
    typed = None if private else repo_id
    line = _line("publish", run_id, to=to, form=form, name=name, hub=repo_id, confirm=typed)
    flags = (" --zip" if zipped else "") + (" --public" if typed else "")
    return line + flags


def _changed(choices: EstimateRequest, described: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    method = described.get("methods", {}).get(choices.method, {})
    fields = method.get("options", {}).get("properties", {})
    defaults = (
        {name: field.get("default") for name, field in fields.items()},
        {k: v for k, v in method.get("schedule", {}).items() if k not in _NO_FIXED_DEFAULT},
        described.get("usual_limits", {}),
    )
    for chosen, usual in zip(
        (choices.options, choices.schedule, choices.limits), defaults, strict=True
    ):
        for name, value in chosen.items():
            if name not in usual or _text(value) != _text(usual[name]):
                yield name, value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_text(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _line(verb: str, subject: str | None, *pairs: tuple[str, str], **options: Any) -> str:
    words = ["python", "app.py", *verb.split()]
    for name, value in (*((f"--{key.replace('_', '-')}", options[key]) for key in options), *pairs):
        if value is True:
            words.append(name)
        elif value is not None:
            words += [name, str(value)] if not str(value).startswith("-") else [f"{name}={value}"]
    if subject is not None:
        words += [subject] if not subject.startswith("-") else ["--", subject]
    return shlex.join(words)
