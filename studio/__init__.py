"""The front of the house: one queue of work, the steps in order, and the verbs of app.py.

settings.py         the only reader of the environment
home.py             where uploads, datasets, plans and jobs live, and how ids are found
jobs/               long work outside the page: line, workers, events
work/               what a worker does, one file per kind of job
runs/               what people do with the jobs they have: name, compare, delete, archive
records.py          what steps leave for later ones
server.py           the process behind the page: one per home
doing.py            runs a job for a verb and shows how it goes
engine_service.py   the resident engine process, for quick questions
screen.py           what a terminal shows: tables, progress, errors as sentences
verbs/              one file per verb of app.py; each loads the room it needs when it runs
"""
