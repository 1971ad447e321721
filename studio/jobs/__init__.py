"""Long work, outside the page: a line of jobs, one process each, and how they are watched.

requests.py    what a job of each kind is asked to do
training.py    the wish to train a plan
queue.py       who waits, who runs; anybody may move it on
launcher.py    a worker as a process of its own
fork_server.py a process with all libraries loaded, from which workers are forked
worker.py      that process: takes the job, does the work, has the last word
stopping.py    how a worker hears that it should stop
context.py     what the worker hands to the work
trackers.py    metrics to CSV, TensorBoard and trackio
follow.py      watching a job to its end, from any process
progress.py    how a job goes on, for pages that ask every second
run_curves.py  the curves of runs, read when there is more
run_story.py   what runs went through, but for their steps
halving.py     of many runs, which go on
history.py     how a run's validation loss went
sweep.py       jobs that were asked for together
sweeping.py    starting, stopping, resuming and following a sweep
sweep_table.py its members side by side
"""
