"""The cleaners: one file each, found by listing this folder.

    trim.py                 spaces at both ends, visible or not
    empty.py                rows without a text, label or answer
    exact_duplicates.py     rows that say the same as an earlier one
    mask_personal_data.py   e-mail addresses, phone and card numbers
    length.py               rows that are too long or too short

A cleaner is a module docstring, `Options`, `clean(examples, options)` and `SPEC`.
"""
