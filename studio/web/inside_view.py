"""What is inside a model, as pictures: what tuning moved, and what fewer bits would cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from studio.web.charts import Bar, Series, bars, line_chart
from studio.web.html import join, section, table, visible
from studio.web.words import percent

_MOST_BARS, _MOST_CURVES = 24, 4
Found = Mapping[str, Any]


def layers_view(layers: Sequence[Found]) -> Markup:
    """Show how far layers moved, and in how many directions.

    Args:
        layers: each a `LayerChange` of `engine/inside.py`, as JSON.

    Returns:
        Pictures; nothing where no layer is a matrix that learned.
    """
    if not layers:
        return Markup("")
    ordered = sorted(layers, key=lambda layer: -layer["change_ratio"])
    left_out = len(ordered) - _MOST_BARS
    more = f" {left_out} more moved less." if left_out > 0 else ""
    moved = bars(
        [
            Bar(
                visible(layer["path"], 60), layer["change_ratio"],
                f"{percent(layer['change_ratio'])} in {layer['effective_rank']:.1f} directions",
            )
            for layer in ordered[:_MOST_BARS]
        ],
        label="How far each layer moved",
    )  # fmt: skip
    curves = [
        Series(
            visible(layer["path"], 60),
            [(place, value) for place, value in enumerate(layer["singular_values"], 1) if value],
            is_dotted=True,
        )
        for layer in ordered[:_MOST_CURVES]
        if any(layer["singular_values"])
    ]
    spectrum = line_chart(
        curves, label="Singular values of the change", x_title="direction, the strongest first"
    ) if curves else Markup("")  # fmt: skip
    return join((
        section("What moved most", "The length of each layer's change over the length of its "
                f"weight, and how many directions the change is spread over.{more}"),
        moved,
        section("In which directions", "Singular values of the changes of the layers that moved "
                "most: a steep fall means that fewer ranks would have done."),
        spectrum,
    ))  # fmt: skip


def prompt_view(prompt: Sequence[Found]) -> Markup:
    """Show which words a soft prompt resembles.

    Args:
        prompt: each a `PromptVector` of `engine/inside.py`, as JSON.

    Returns:
        A table; nothing where there is no soft prompt.
    """
    if not prompt:
        return Markup("")
    rows = [
        (
            vector["place"] + 1,
            ", ".join(
                f"“{visible(near['token'], 30)}” {near['cosine']:.2f}" for near in vector["nearest"]
            ),
            f"{vector['length_ratio']:.2f}",
        )
        for vector in prompt
    ]
    return join((
        section("The words that the prompt resembles", "The nearest tokens by cosine. Soft prompts "
                "often resemble no word at all."),
        table(("Place", "Nearest", "Length over a word's"), rows,
              caption="Soft prompt, place by place", numeric=(2,)),
    ))  # fmt: skip


def errors_view(layers: Sequence[Found]) -> Markup:
    """Show what quantising does to each layer.

    Args:
        layers: each a `LayerErrors` of `engine/reference_quantisers.py`, as JSON; at least one.

    Returns:
        A picture and its table.
    """
    ways = list(layers[0]["errors"])
    curves = [
        Series(way, [(place, 100 * layer["errors"][way]) for place, layer in enumerate(layers, 1)])
        for way in ways
    ]
    rows = [
        (visible(layer["path"], 80), *(percent(layer["errors"][way]) for way in ways))
        for layer in layers
    ]
    return join((
        section("What fewer bits do to each layer", "The error of each layer's output in per cent "
                "of its length, for what came into the layer when the model read the text."),
        line_chart(curves, label="Error of each layer's output, in per cent", x_title="layer"),
        table(("Layer", *ways), rows, caption="Errors", numeric=range(1, len(ways) + 1)),
    ))  # fmt: skip
