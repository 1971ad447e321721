"""From a messy table to a dataset folder.

In the order of the work:

    table.py          Table, Row: names and text cells with their line numbers
    signatures.py     files that are not text, told by their first bytes
    encoding.py       bytes -> text, reported where it is a guess
    delimited.py      CSV and TSV, strictly
    json_lines.py     JSON Lines and JSON, strictly
    json_text.py      one JSON value, strictly
    cell.py           a typed value -> the text a person would write
    zip_safety.py     zip files, judged before they are unpacked
    workbook.py       Excel workbooks
    parquet.py        Parquet files
    plain_text.py     text files: one row a paragraph or line
    text_archive.py   a zip of text files: one row a file
    table_file.py     a file on disk -> its rows
    table_preview.py  the beginning of a file, at once
    hub_tables.py     a data set on the Hub -> a file on disk
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
    rehearsal.py      what preparing would do
    service.py        the resident child that opens people's tables
    exports.py        examples -> JSONL for other tools
    curves.py         event files -> what a run's charts show
    answers.py        predictions file -> rows, counts, confusion
    samples/          tables that ship with the studio

This room imports neither engine nor studio, no torch and no browser.
"""
