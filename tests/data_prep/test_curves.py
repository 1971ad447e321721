import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.curves import Curves, EvaluationCurve, StepCurve, read_curves
from engine.events import Evaluated, Event, Failed, Saved, Stamped, Started, Stepped, to_json
from engine.jobs import Job
from templates.errors import RunError

TORN = (b'{"event":"Stepped","st', b'{"event":"Started","notices":["caf\xc3', b"\0\0\0", b"", b"3")


def line(event: Event) -> bytes:
    return to_json(Stamped(event, 1.7e9, 5.0)).encode()


def stepped(step: int, loss: float = 1.0, *, seconds: float = 0.5) -> Stepped:
    return Stepped(step, loss, 0.1, 2.0, 30, seconds)


def write(folder: Path, attempt: int, lines: list[bytes]) -> Path:
    path = folder / "attempts" / str(attempt) / "events.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\n".join(lines))
    return path


def story(draw: random.Random, folder: Path) -> None:
    """Some attempts, each killed somewhere and resumed from some checkpoint before."""
    saved = [0]
    for attempt in range(1, draw.randrange(1, 5)):
        lines = [line(Failed("it fell", "stand up"))] if draw.random() < 0.2 else []
        first = draw.choice(saved) + 1
        if draw.random() < 0.9:
            lines.append(line(Started(99, first, 5, 50, ("naïve\nnotice",))))
        for step in range(first, first + draw.randrange(40)):
            loss, seconds = draw.random(), draw.choice([0.0, draw.random()])
            lines.append(line(Stepped(step, loss, draw.random(), draw.random() * 9, 77, seconds)))
            if step % 3 == 0:
                best = draw.random() < 0.5
                lines.append(line(Evaluated(step, draw.random(), draw.random(), best, 0.1)))
                lines.append(line(Saved(step, f"step-{step}", best)))
                saved.append(step)
            if draw.random() < 0.1:
                lines.append(draw.choice(TORN))
        lines.append(draw.choice(TORN))
        write(folder, attempt, lines[: draw.randrange(len(lines) + 1)])


def whole(events: list[Event]) -> Curves:
    """The curves of a short run, folded in plain Python."""
    steps = [
        (e.step, e.loss, e.loss, e.loss, e.learning_rate, e.gradient_norm,
         e.num_tokens / e.seconds if e.seconds else 0.0)
        for e in events if isinstance(e, Stepped)
    ]  # fmt: skip
    evaluations = [
        (e.step, e.loss, e.token_accuracy_ratio, e.is_best)
        for e in events
        if isinstance(e, Evaluated)
    ]
    return Curves(
        StepCurve(*zip(*steps, strict=True)),
        EvaluationCurve(*zip(*evaluations, strict=True)),
        tuple(event.step for event in events if isinstance(event, Saved)),
    )


@settings(max_examples=60)
@given(st.integers(0, 10**9))
def test_the_curves_are_a_fold_over_the_events(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name))
        story(random.Random(seed), job.folder)
        assert read_curves(job.attempt_events()) == whole(job.events())


@settings(max_examples=40)
@given(
    losses=st.lists(st.floats(-1e3, 1e3).map(lambda loss: float(f"{loss:.6g}")), min_size=1),
    gap=st.integers(1, 50),
    max_points=st.integers(3, 20),
)
def test_fewer_points_keep_the_ends_and_the_extremes(
    losses: list[float], gap: int, max_points: int
) -> None:
    rows = [stepped(1 + number * gap, loss) for number, loss in enumerate(losses)]
    judged = [Evaluated(row.step, row.loss, 0.5, False, 0.1) for row in rows]
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name), 1, [line(event) for event in (*rows, *judged)])
        curves = read_curves({1: path}, max_points=max_points)
    curve = curves.steps
    assert len(curve.step) == len(rows) or len(curve.step) <= max_points
    assert list(curve.step) == sorted(set(curve.step)) and set(curve.step) <= {
        row.step for row in rows
    }
    for place, row in ((0, rows[0]), (-1, rows[-1])):
        assert (curve.step[place], curve.loss[place]) == (row.step, row.loss)
    assert (min(curve.loss_min), max(curve.loss_max)) == (min(losses), max(losses))
    before = 0
    for number, step in enumerate(curve.step):
        inside = [row.loss for row in rows if before < row.step <= step]
        assert curve.loss[number] == pytest.approx(sum(inside) / len(inside), abs=1e-9)
        assert (curve.loss_min[number], curve.loss_max[number]) == (min(inside), max(inside))
        before = step
    evaluations = curves.evaluations
    assert len(evaluations.step) <= max_points or len(rows) <= max_points
    assert min(evaluations.loss) == min(losses)
    assert (evaluations.step[0], evaluations.step[-1]) == (rows[0].step, rows[-1].step)


def test_a_point_of_many_steps_has_their_speed_and_largest_gradient(tmp_path: Path) -> None:
    rows = [Stepped(step, 1.0, step / 10, float(step), 100 * step, 2.0) for step in range(1, 6)]
    curve = read_curves({1: write(tmp_path, 1, [*map(line, rows)])}, max_points=3).steps
    assert curve.step == (1, 4, 5)
    assert curve.tokens_per_second == (50.0, (200 + 300 + 400) / 6, 250.0)
    assert curve.gradient_norm == (1.0, 4.0, 5.0)
    assert curve.learning_rate == (0.1, pytest.approx(0.3), 0.5)


@pytest.mark.parametrize("event", [stepped(7), Saved(7, "step-7", True), Failed("what", "fix")])
def test_one_event(tmp_path: Path, event: Event) -> None:
    assert read_curves({1: write(tmp_path, 1, [line(event)])}) == whole([event])


def test_nothing_yet(tmp_path: Path) -> None:
    empty = write(tmp_path, 1, [])
    assert read_curves({}) == read_curves({1: empty, 2: tmp_path / "missing"}) == Curves()


def test_a_line_that_goes_on_where_another_was_torn_is_lost_alone(tmp_path: Path) -> None:
    lines = [line(stepped(1)), TORN[0] + line(stepped(2)), line(stepped(3))]
    assert read_curves({1: write(tmp_path, 1, lines)}).steps.step == (1, 3)


def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*?'; DROP TABLE events"
    write(tmp_path / "ab", 1, [line(stepped(9))])
    assert read_curves({1: write(folder, 1, [line(stepped(1))])}).steps.step == (1,)


def test_a_file_that_goes_away_meanwhile_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    with pytest.raises(RunError, match=r"Reading the run's events did not work\. Check that"):
        read_curves({1: tmp_path / "gone"})
