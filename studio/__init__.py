"""The front of the house: one queue of work, the steps in order, and the verbs of app.py.

settings.py   the only reader of the environment
home.py       where uploads, datasets, plans and jobs live, and how ids are found
screen.py     what a terminal shows: tables, progress, errors as sentences
verbs/        one file per verb of app.py; each loads the room it needs when it runs
"""
