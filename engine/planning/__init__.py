"""Before a run: choices become a plan, and the plan says what it will take.

choices.py        what a person chose so far, as pages send it; free of torch
ground.py         what all plans for one dataset and one base share
make_plan.py      choices -> TrainPlan and its cost
method_table.py   all methods side by side, the one to begin with first
remedies.py       what would make a plan fit, estimated again
advice.py         MethodRow, Remedy: the values; free of torch
estimate.py       CostEstimate, Hardware: the values; free of torch
cost.py           memory by part, arithmetic, time
architecture.py   what a model is made of, counted without weights
activations.py    what autograd keeps, counted on fake tensors
hardware.py       what this machine can do, and the settings training wants
preview.py        what the model reads and what the loss sees; token lengths
shown.py          PreviewItem, LengthReport: the values; free of torch
"""
