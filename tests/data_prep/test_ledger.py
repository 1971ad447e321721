from dataclasses import replace

from data_prep.ledger import Ledger, show, show_samples
from templates.dataset import Change
from templates.example import Example

FIRST = Example({"text": "a", "more": "b"}, label="x", source_rows=(3,))


def test_report() -> None:
    ledger = Ledger("step")
    ledger.changed(FIRST, replace(FIRST, fields={"text": "a", "more": "B"}))
    ledger.dropped((1, 2), "z" * 999, "too long")
    ledger.counts["nothing"] += 0
    report = ledger.report(5, 4)
    assert (report.step, report.rows_in, report.rows_out, report.rows_changed) == ("step", 5, 4, 1)
    assert report.rows == (1, 2, 3)
    assert report.counts == {"too long": 1}
    assert report.samples[0] == Change(row=3, before="b", after="B")
    assert report.samples[1].before == "z" * 999 and report.samples[1].after is None
    assert show_samples(report, str).samples[1].before == "z" * 300


def test_samples_are_rewritten_whole_and_part_by_part_before_they_are_cut() -> None:
    ledger = Ledger("step")
    ledger.dropped((1,), "x" * 298 + "secret | secret", "too long")
    seen: list[str] = []

    def rewrite(text: str) -> str:
        seen.append(text)
        return text.replace("secret", "?")

    (sample,) = show_samples(ledger.report(1, 0), rewrite).samples
    assert sample.before == "x" * 298 + "? " and len(sample.before) == 300
    assert seen == ["x" * 298 + "secret | secret", "x" * 298 + "?", "?"]


def test_show_and_sample_limit() -> None:
    assert show(FIRST) == "a | b | x"
    ledger = Ledger("step")
    for _ in range(9):
        ledger.added(FIRST, FIRST)
    assert len(ledger.report(9, 18).samples) == 5
