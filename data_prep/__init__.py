"""From a messy table to a dataset folder.

In the order of the work:

    table.py          Table, Row: names and text cells with their line numbers
    signatures.py     files that are not text, told by their first bytes
    encoding.py       bytes -> text, reported where it is a guess
    delimited.py      CSV and TSV, strictly
    json_lines.py     JSON Lines and JSON, strictly
    json_text.py      one JSON value, strictly
    table_file.py     a file on disk -> Table
    database.py       the only owner of DuckDB: rows, column profiles, questions to files
    upload.py         Upload: the folder of a table that was read
    conversation.py   a JSON cell -> turns
    mapping.py        ColumnMapping: rows -> examples
    recognition.py    what a table seems to be for
    step_spec.py      what a cleaner or augmenter tells about itself
    ledger.py         what a step did, written down
    cleaners/         one file per cleaner
    augmenters/       one file per augmenter
    splits.py         train, validation, test without leaks
    marks.py          separator and stop sequence against the data
    checks.py         pre-flight checks: errors and warnings with rows
    recipe.py         PrepRecipe: what to replay
    prepare.py        upload + recipe -> dataset folder
    exports.py        examples -> JSONL for other tools
    curves.py         event files -> what a run's charts show
    samples/          tables that ship with the studio

This room imports neither engine nor studio, no torch and no browser.
"""
