from dataclasses import replace

from data_prep.ledger import Ledger, show
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
    assert report.samples[1].before == "z" * 300 and report.samples[1].after is None


def test_show_and_sample_limit() -> None:
    assert show(FIRST) == "a | b | x"
    ledger = Ledger("step")
    for _ in range(9):
        ledger.added(FIRST, FIRST)
    assert len(ledger.report(9, 18).samples) == 5
