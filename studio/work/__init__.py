"""What a worker does: one file per kind of job, each with `run(request, context)`.

prepare.py     upload -> dataset
train.py       plan -> checkpoints
compare.py     tuned model against prompting
predict.py     answers to a new table
publish.py     a folder others can load
fetch.py       a base model from the Hub
download.py    a table of a Hub data set
tuned_run.py   a finished run, opened for what comes after training
"""
