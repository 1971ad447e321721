"""A 5-gram over tokens, as a yardstick for the prose figures: what counting alone can do.

Interpolated modified Kneser-Ney (Chen and Goodman 1998), backing off to uniform over
the vocabulary:

p_k(w | h) = (max(c(h w) - D[c(h w)], 0) + g(h) p_{k-1}(w | h')) / c(h)

with h' the context without its first token, g(h) what the discounts took from h, and c the plain
counts at the highest order, below it in how many different contexts an n-gram was seen.

An n-gram is the place of its first k - 1 tokens among the (k-1)-grams, times V, plus its last
token: one sorted array of 64-bit keys for each order, whatever the size of the vocabulary.
Shapes: N tokens, V vocabulary, M n-grams of one order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_LEAST_DISCOUNT = 0.05  # with none, a token never seen would have no probability


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length, by key.

    Attributes:
        keys: (M,) sorted.
        kept: (M,) count less discount.
        totals: c(h) for each context h, by its place in the order below.
        freed: g(h) for each context.
    """

    keys: Integers
    kept: Floats
    totals: Floats
    freed: Floats


@dataclass(frozen=True)
class TokenNgram:
    """A trained model.

    Attributes:
        vocabulary_size: V; ids are below it.
        orders: from single tokens up.
    """

    vocabulary_size: int
    orders: tuple[_Order, ...]

    def probabilities(self, ids: Integers) -> Floats:
        """Say how likely each token was, after the ones before it.

        Args:
            ids: (N,) token ids.

        Returns:
            (N,) probabilities; the first token has no context.
        """
        likely = np.full(len(ids), 1.0 / self.vocabulary_size)
        contexts = np.zeros(len(ids), dtype=np.int64)  # the empty context has place 0
        for order in self.orders:
            places = _find(order.keys, contexts, ids, self.vocabulary_size)
            known = contexts >= 0
            totals = np.where(known, order.totals[contexts], 0.0)
            seen = totals > 0
            kept = np.where(places >= 0, order.kept[places], 0.0)
            freed = order.freed[contexts]
            likely[seen] = (kept[seen] + freed[seen] * likely[seen]) / totals[seen]
            # The n-gram that ends one token earlier is the context of the next order.
            contexts = np.concatenate([[-1], places[:-1]])
        return likely

    def nats(self, ids: Integers) -> float:
        """Measure how surprising a text is.

        Args:
            ids: (N,) token ids.

        Returns:
            The sum of -log p over all tokens.
        """
        return float(-np.log(self.probabilities(ids)).sum())


def train_ngram(ids: Integers, vocabulary_size: int, *, length: int = 5) -> TokenNgram:
    """Count n-grams of all lengths up to one.

    Args:
        ids: (N,) token ids of the training text; N above `length`.
        vocabulary_size: V.
        length: tokens of the longest n-gram.

    Returns:
        The model.
    """
    assert len(ids) > length and int(ids.max()) < vocabulary_size
    places = np.zeros(len(ids) + 1, dtype=np.int64)  # of the n-gram that starts at each token
    all_keys: list[Integers] = []
    counts: list[Floats] = []
    for depth in range(length):
        starts = len(ids) - depth
        keys = places[:starts] * vocabulary_size + ids[depth:]
        unique, first, places_now, seen = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        if depth:  # the order below counts in how many different contexts it was seen
            suffixes = places[first + 1]
            counts[-1] = np.bincount(suffixes, minlength=len(all_keys[-1])).astype(np.float64)
        all_keys.append(unique)
        counts.append(seen.astype(np.float64))
        places = places_now.astype(np.int64)
    num_contexts = [1, *(len(keys) for keys in all_keys)]
    return TokenNgram(
        vocabulary_size,
        tuple(
            _order(keys, count, vocabulary_size, contexts)
            for keys, count, contexts in zip(all_keys, counts, num_contexts, strict=False)
        ),
    )


def _order(keys: Integers, counts: Floats, vocabulary_size: int, num_contexts: int) -> _Order:
    discounts = _discounts(counts)[np.minimum(counts, 3).astype(np.int64)]
    contexts = keys // vocabulary_size
    return _Order(
        keys,
        counts - discounts,
        np.bincount(contexts, weights=counts, minlength=num_contexts).astype(np.float64),
        np.bincount(contexts, weights=discounts, minlength=num_contexts).astype(np.float64),
    )


def _discounts(counts: Floats) -> Floats:
    """What is taken from n-grams seen 0, 1, 2 and more times: (4,)."""
    ones, twos, threes, fours = (max(int((counts == n).sum()), 1) for n in (1, 2, 3, 4))
    share = ones / (ones + 2 * twos)
    wanted = [1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos]
    wanted.append(3 - 4 * share * fours / threes)
    # Too few n-grams give odd values; a discount is never more than what the rarest has.
    bounded = [min(max(value, _LEAST_DISCOUNT), n) for n, value in enumerate(wanted, 1)]
    return np.array([0.0, *bounded])


def _find(keys: Integers, contexts: Integers, ids: Integers, vocabulary_size: int) -> Integers:
    """The place of each n-gram among the keys; -1 where it was never seen."""
    wanted = contexts * vocabulary_size + ids
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((contexts >= 0) & (keys[places] == wanted), places, -1)
