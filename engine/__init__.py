"""The training core: plan, cost, train, compare, publish. No browser and no database here.

Shapes, used in docstrings and beside the lines where a shape changes:
    B batch, T tokens, D width, H heads, R rank, P prompt tokens, V vocabulary, L labels, N items
"""
