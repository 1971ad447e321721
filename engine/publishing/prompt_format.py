"""How a tuned model must be asked, taken from the very code that rendered its training rows."""

from collections.abc import Sequence

from engine.comparing.prompting import longest_answer_tokens
from engine.language_model import LanguageModel
from engine.publishing.publication import PromptFormat
from templates.dataset import Dataset
from templates.example import Example, Turn
from templates.render import answer_text, render

_MESSAGE, _ANSWER = "{message}", "{answer}"


def prompt_format(
    language_model: LanguageModel, dataset: Dataset, train: Sequence[Example]
) -> PromptFormat:
    """Describe the format.

    Args:
        language_model: gives tokenizer and chat template.
        dataset: gives wording and labels.
        train: the training rows; only the length of their answers is used.

    Returns:
        The format, with slots in braces instead of anyone's text.
    """
    template = dataset.template
    example = Example(
        fields={slot: f"{{{slot}}}" for slot in template.slots},
        label=_ANSWER if template.has_labels else None,
        references=() if template.has_labels else (_ANSWER,),
        turns=(Turn("user", _MESSAGE), Turn("assistant", _ANSWER)),
    )
    assert answer_text(example, template) == _ANSWER
    rendered = render(example, template, tokenizer=language_model.tokenizer)
    opening, _, closing = rendered.completion.partition(_ANSWER)
    return PromptFormat(
        template=template,
        labels=dataset.labels,
        layout="chat template" if language_model.has_chat_template else "raw",
        prompt=rendered.prompt,
        answer_opening=opening,
        answer_closing=closing,
        stop=rendered.stop,
        opening_ids=tuple(language_model.opening_ids()),
        max_new_tokens=longest_answer_tokens(language_model, train, template),
    )
