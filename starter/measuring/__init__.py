"""The figures of the model card: each part measures its cells, the summary folds them into tables.

bench.py       what is measured and on what; the finished cells; answers against labels
prose.py       bits per byte on held-out prose, beside the first version and a 5-gram
in_context.py  balanced accuracy behind 0 to 16 demonstrations, in the product's own prompts
tuning.py      LoRA on 100 and 1,000 rows with the product's defaults, beside TF-IDF
texts.py       what the model writes by itself
speed.py       loading, a LoRA step, greedy decoding
summary.py     the tables of all parts, and which targets they meet
"""
