"""Before a run: choices become a plan, and the plan says what it will take.

make_plan.py      choices -> TrainPlan and its cost
estimate.py       CostEstimate, Hardware: the values; free of torch
cost.py           memory by part, arithmetic, time
architecture.py   what a model is made of, counted without weights
activations.py    what autograd keeps, counted on fake tensors
hardware.py       what this machine can do, and the settings training wants
preview.py        what the model reads and what the loss sees; token lengths
shown.py          PreviewItem, LengthReport: the values; free of torch
"""
