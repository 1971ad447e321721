"""Did tuning help? The same test rows for every way to answer, and one planned test.

compare.py          all arms -> Comparison and predictions
comparison.py       Comparison: arms, intervals, verdict, sentence; free of torch
arms.py             one way to answer after the other
few_shot.py         the search for the best few-shot prompt, on validation rows
demonstrations.py   which examples a prompt shows, and in which order
prompting.py        the prompts of an arm as tokens; the same cutting for all
classical.py        the most frequent label; TF-IDF and logistic regression
scoring.py          answers against what was expected
metrics.py          accuracy, F1, exact match, chrF, BLEU, ROUGE-L
statistics.py       intervals, exact tests, how many rows would settle it
"""
