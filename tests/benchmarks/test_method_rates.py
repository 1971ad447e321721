from benchmarks.method_rates import search


def test_the_best_rate_has_a_worse_one_on_either_side() -> None:
    tried = []

    def score_at(rate: float) -> float:
        tried.append(rate)
        return -abs(rate - 0.027)

    found = search(0.001, score_at)
    best = max(found, key=lambda rate: found[rate])
    assert best == 0.027 and {0.009, 0.081} <= found.keys()
    assert len(tried) == len(set(tried)) == len(found)


def test_a_search_without_a_summit_comes_to_an_end() -> None:
    assert len(search(1e-4, lambda rate: rate)) == 6
