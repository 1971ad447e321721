"""The starter model, which ships with the studio: how it is made, and what it can do.

In the order in which things happen:

    corpus.py           the texts it learns from, and what is held out
    words.py            word lists for the little tasks
    families.py         families of little tasks, each draw with a new rule
    episodes.py         solved items of one task as a few-shot prompt of the studio
    rows.py             documents -> token rows of one length, on disk
    recipe.yaml         how it is made: tokenizer, shape, stages
    recipe.py           the recipe as frozen, checked values
    first_weights.py    the untrained model, ready to find what was there before
    muon.py             the optimizer
    pretrain.py         raw text -> model folder: `make starter`
    model/              the model that ships
    measure.py          the command line that measures it
    measuring/          prose, in context, tuning, texts, speed; tables and targets
    ngram.py            a 5-gram, the yardstick for prose
    tasks.py            real tables and held-out families, and the score of answers
    card.py             the model card, written from the measured figures
"""
