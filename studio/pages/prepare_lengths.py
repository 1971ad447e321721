"""How a base reads the prepared examples, in HTML: token by token, and how long they are."""

from markupsafe import Markup

from engine.planning.shown import LengthReport, PreviewItem, TokenPiece
from studio.pages.prepare_views import legend, with_breaks
from studio.web.charts import histogram
from studio.web.html import callout, join
from studio.web.words import count, figure, percent


def tokens(item: PreviewItem, *, with_borders: bool) -> Markup:
    """Show an example as the model reads it.

    Args:
        item: the example.
        with_borders: whether each token is set apart.

    Returns:
        Text in which what the loss sees is marked, and a line that counts.
    """
    groups: list[tuple[tuple[bool, bool], list[TokenPiece]]] = []
    for piece in item.pieces:
        kind = (piece.supervised, piece.special)
        if not groups or groups[-1][0] != kind:
            groups.append((kind, []))
        groups[-1][1].append(piece)
    parts = []
    for (supervised, special), pieces in groups:
        if with_borders:
            text = join(
                Markup('<span data-token title="token {}">{}</span>').format(
                    piece.id, with_breaks(piece.text)
                )
                for piece in pieces
            )
        else:
            text = with_breaks("".join(piece.text for piece in pieces))
        text = Markup("<i>{}</i>").format(text) if special else text
        parts.append(Markup("<mark>{}</mark>").format(text) if supervised else text)
    words = (
        f"Row {', '.join(map(str, item.source_rows))}: {count(item.num_tokens, 'token')}, "
        f"{item.num_supervised} of them learned"
    )
    return (
        legend(
            ("plain", "read only"), ("mark", "learned: the loss sees it"),
            ("special", "marks of the tokenizer"),
        )
        + Markup('<div class="ts-tokens ts-token-borders" dir="auto" tabindex="0">{}</div>').format(
            join(parts)
        )
        + Markup('<p class="ts-soft">{}</p>').format(words)
    )  # fmt: skip


def lost(lengths: LengthReport, most_tokens: int) -> tuple[float, float]:
    """Estimate what a limit would leave out, from the bars of the histogram.

    Args:
        lengths: of all training examples.
        most_tokens: the limit.

    Returns:
        Share of the rows, and share of the tokens, that belong to longer examples.
    """
    rows = tokens_lost = tokens_all = 0.0
    for one in lengths.bins:
        middle = (one.from_tokens + one.to_tokens) / 2
        width = one.to_tokens - one.from_tokens + 1
        over = min(1.0, max(0.0, (one.to_tokens - most_tokens) / width))
        if most_tokens >= lengths.max_tokens:
            over = 0.0
        rows += over * one.count
        tokens_lost += over * one.count * middle
        tokens_all += one.count * middle
    return rows / max(1, lengths.count), tokens_lost / max(1.0, tokens_all)


def length_view(lengths: LengthReport, most_tokens: int) -> Markup:
    """Show how long the training examples are, and what a limit leaves out.

    Args:
        lengths: of all training examples.
        most_tokens: the limit.

    Returns:
        A histogram and a sentence.
    """
    rows, part = lost(lengths, most_tokens)
    bins = [(one.from_tokens, one.to_tokens + 1, one.count) for one in lengths.bins]
    told = (
        f"Half of the {lengths.count:,} training examples have at most "
        f"{figure(lengths.median_tokens)} tokens, the longest {lengths.max_tokens:,}; the base "
        f"reads {lengths.context_tokens:,} at once."
    )
    chart = histogram(
        bins, label=told, x_title="tokens in an example", cutoff=float(most_tokens), height=180
    )
    if rows:
        left = (
            f"Of the rows {percent(rows)} are longer than {most_tokens:,} tokens; they hold "
            f"{percent(part)} of all tokens. They are left out of training."
        )
        news = callout("warn", left, fix="The plan step can cut their beginning instead.")
    else:
        news = callout("good", "Every training example fits")
    return Markup("<p>{}</p>").format(told) + chart + news
