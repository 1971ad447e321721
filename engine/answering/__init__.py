"""A model answers: text, greedy, drawn or by beams, and scores of labels. No templates here.

generation.py      texts of many prompts at once, or piece by piece
label_scores.py    how likely each label is
choice.py          how the next token is chosen
beams.py           several answers followed at once
answer.py          a growing answer: where it ends, what is certain of it
opening.py         which way of reading suits a model and the memory
reading.py         what every way of reading can do
packed_reading.py  rows as one line without padding, coming and going
padded_reading.py  rows as a padded batch, for architectures that need one
slots.py           keys and values row by row, and the attention that reads them
"""
