"""The shared vocabulary: what data_prep writes and engine reads.

    values.py     the frozen pydantic base of everything that crosses a form or a file
    errors.py     the exception tree: what happened, where, how to fix it
    files.py      hashes, canonical JSON, atomic writes
    example.py    Example, Turn: one row as fields, never only a rendered string
    template.py   Template: wording, separator, stop, verbalizer, metric
    builtin.py    the templates that ship with the studio
    render.py     Example + Template (+ chat template, demonstrations) -> text segments
    dataset.py    Dataset: the folder where prepare and plan meet
    hub_address.py  whether a token may be sent to the Hub's address
    memory.py     how much memory there is, and keeping to a share of it
    service.py    a resident child that answers questions in JSON lines

This room imports neither data_prep nor engine, no torch and no database.
"""
