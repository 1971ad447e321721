"""What a preview shows, as frozen values. Free of torch."""

from itertools import groupby

from pydantic import Field

from templates.values import Value


class TokenPiece(Value):
    """One token as text; a character split over several tokens stands at its last one."""

    id: int
    text: str
    supervised: bool = Field(description="Whether the loss sees this token.")
    special: bool = Field(description="A mark of the tokenizer, such as end of text.")


class Passage(Value):
    """Neighbouring pieces of one kind, to be shown in one colour."""

    text: str
    supervised: bool
    special: bool
    num_tokens: int


class PreviewItem(Value):
    """One example as the model reads it in training; the joined pieces are the exact text."""

    pieces: tuple[TokenPiece, ...]
    num_tokens: int = Field(description="Soft prompt included.")
    num_supervised: int
    num_virtual_tokens: int = Field(description="Soft prompt, which has no text.")
    source_rows: tuple[int, ...] = Field(description="1-based rows of the upload.")

    @property
    def text(self) -> str:
        """Everything the model reads."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def supervised_text(self) -> str:
        """Only what the loss sees."""
        return "".join(piece.text for piece in self.pieces if piece.supervised)

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The pieces, neighbours of one kind joined."""
        groups = groupby(self.pieces, key=lambda piece: (piece.supervised, piece.special))
        return tuple(
            Passage(
                text="".join(piece.text for piece in members),
                supervised=supervised,
                special=special,
                num_tokens=len(members),
            )
            for (supervised, special), found in groups
            for members in [list(found)]
        )


class LengthBin(Value):
    """One bar of the histogram: from <= tokens <= to."""

    from_tokens: int
    to_tokens: int
    count: int


class LengthReport(Value):
    """How long the examples of a split are, soft prompt left out."""

    count: int
    min_tokens: int
    median_tokens: float
    p95_tokens: int = Field(description="95 % of the examples are at most this long.")
    max_tokens: int
    context_tokens: int = Field(description="What fits into the base.")
    num_over_context: int
    supervised_ratio: float = Field(description="Share of all tokens that the loss sees.")
    bins: tuple[LengthBin, ...]
