"""The start screen and the six steps of the wizard, one file each.

page.py       what all of them have in common: Page, Shell
start.py      begin with a sample, a file or a Hub data set, or go on with a project
  start_projects.py     the list of projects
  start_hub.py          choosing a table of a Hub data set
upload.py     1  the table as it was understood
  upload_profile.py     rows and columns, with small charts
  upload_correction.py  having the file read differently
prepare.py    2  columns, wording, cleaning, splits; its parts:
  prepare_columns.py    the task, and what each column is used for
  prepare_wording.py    how a row is put into words
  prepare_steps.py      cleaners and augmenters
  prepare_splits.py     three parts, and the checks
  prepare_result.py     the job, and what it made
  prepare_views.py      how rows and columns are shown
  prepare_step_cards.py what each step did, and to which rows
  prepare_lengths.py    tokens and lengths, as a base reads them
  prepare_recipe.py     what a click does to a recipe
  prepare_differences.py  how two recipes differ
  prepare_desk.py       table, recipe, and what came of trying it, kept between two clicks
  prepare_data.py       what was prepared, and how the base reads it
  prepare_replay.py     taking a recipe file
plan.py       3  base, method, cost; its parts:
              plan_bases.py, plan_methods.py, plan_settings.py, plan_cost.py
              plan_desk.py  what the engine said, kept between two clicks
train.py      4  watch, stop, go on
  train_desk.py     starting, stopping, going on; what there is to see
  train_view.py     what will be trained, and how the run goes
  train_charts.py   its curves
  train_samples.py  its answers to a few examples
  train_runs.py     the runs side by side, and the line
  train_log.py      what happened, in sentences
compare.py    5  the verdict and what it rests on
  compare_subject.py     which run, data and comparison it is about
  compare_verdict.py     the verdict, plots and tables
  compare_answers.py     confusion, filters, rows side by side
  compare_rows.py        how these are drawn
  compare_try.py         one text, two models
  compare_inside.py      which layers moved, and what a soft prompt resembles
  compare_predict.py     a whole table
download.py      a button that makes a file
drawer.py        answers kept between two clicks
publish.py    6  what goes out, and to whom
  publish_subject.py    the run, what was written of it, what was sent
  publish_forms.py      adapter or merged model
  publish_views.py      what is published, its files, what was found in them, how it is used
  publish_card.py       the model card as it will look
  publish_hub.py        to the Hub
"""
