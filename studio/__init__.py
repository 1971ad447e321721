"""The front of the house: one queue of work, the steps in order, and the verbs of app.py.

settings.py         the only reader of the environment
home.py             where uploads, datasets, plans and jobs live, and how ids are found
jobs/               long work outside the page: line, workers, events
wizard.py           the page: start screen and six steps
pages/              one file per step
web/                what pages are made of, and how they are served
projects.py         which upload, dataset, plan and runs belong together
readings.py         files on their way into projects
planning.py         from what is chosen to a kept plan
journey.py          how far a project is, derived from files
work/               what a worker does, one file per kind of job
runs/               what people do with the jobs they have: name, compare, delete, archive
publishing_check.py what leaves with a published folder, and what should perhaps stay
records.py          what steps leave for later ones
server.py           the process behind the page: one per home
doing.py            runs a job for a verb and shows how it goes
child_service.py    a resident child process: started, asked, started again
engine_service.py   the one that opens models
data_service.py     the one that opens people's tables
trying.py           a text that is tried on a run
answer_files.py     answers as files that people take away
commands.py         what a page did, as a line for a terminal
screen.py           what a terminal shows: tables, progress, errors as sentences
verbs/              one file per verb of app.py; each loads the room it needs when it runs
"""
