"""What people do with the jobs they have: name, compare settings, delete, free space, hand on.

idle.py         a job that nobody works on, held so that it stays so
about.py        name, tags and note
difference.py   two jobs' settings and results, where they differ
saves.py        the checkpoints of a run that must not be lost
trash.py        deleted jobs, until they are restored or the trash is emptied
disk.py         who takes up how much, and checkpoints that a run can do without
archive.py      how a run lies in one zip file
exporting.py    a run, out of this home into such a file
importing.py    a run, out of such a file into this home
"""
