"""What pages are made of, and how they are served.

application.py   Gradio behind the guard
access.py        Host, Origin, the key of the launch, safety headers
theme.py         colours and type; style.css the rest; page.js what only a browser can do
html.py          pieces of HTML; every text is escaped
choices.py       cards to choose from; buttons inside HTML
charts.py        SVG charts
inside_view.py   what is inside a model, as charts
picture_file.py  charts as a file of their own
forms.py         a component for each field of a model
job_view.py      how a job goes
words.py         numbers, sizes, times as people read them
toasts.py        what goes wrong, as a message with a remedy
"""
