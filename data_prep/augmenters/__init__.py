"""The augmenters: one file each, found by listing this folder; they see the training split only.

    word_noise.py   copies with words deleted and swapped

An augmenter is a module docstring, `Options`, `augment(examples, options, seed)` and `SPEC`.
"""
