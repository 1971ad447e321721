from pathlib import Path

from engine.events import Evaluated, Launched, Started, Stepped, Stopped
from engine.jobs import create_job
from studio.jobs.history import read_history


def test_what_was_done_twice_counts_once_and_torn_lines_not_at_all(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    assert read_history(job).best_loss() is None and read_history(job).last_evaluated == 0
    first = job.start_attempt()
    first.write(Launched(1, 1, "boot", 0, until_step=3))
    first.write(Started(9, 1, 5, 50))
    first.write(Stepped(1, 1.0, 0.1, 1.0, 10, 0.1))
    for step, loss in ((2, 0.9), (4, 0.1)):
        first.write(Evaluated(step, loss, 0.5, True, 0.1))
    with first.path.open("a") as file:
        file.write('{"event":"Evaluated","at":1,"st')
    second = job.start_attempt()
    second.write(Launched(1, 1, "boot", 0, until_step=6))
    second.write(Started(9, 3, 5, 50))
    second.write(Evaluated(4, 0.5, 0.5, True, 0.1))
    second.write(Stopped(6, 0.5))
    history = read_history(job)
    assert history.evaluations == {2: 0.9, 4: 0.5}
    assert (history.asked_step, history.last_evaluated) == (6, 4)
    assert history.best_loss() == 0.5 and history.best_loss(until_step=3) == 0.9
    assert history.seconds >= 0
