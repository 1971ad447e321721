"""The templates that ship with the studio, one for each kind of task."""

from templates.template import Template

_TEMPLATES = (
    Template(
        name="classification",
        task="classification",
        wording="{text}",
        instruction="Say which label fits the text. The labels are: {labels}.",
        metric="accuracy",
    ),
    Template(
        name="pair_classification",
        task="pair_classification",
        wording="First: {first}\nSecond: {second}",
        instruction="Say which label fits the two sentences. The labels are: {labels}.",
        metric="accuracy",
    ),
    Template(
        name="generation",
        task="generation",
        wording="{instruction}\n\n{input}",
        optional_slots=("instruction", "input"),
        instruction="Write the answer that belongs to the text.",
        metric="chrf",
    ),
    Template(
        name="question_answering",
        task="question_answering",
        wording="{context}\n\nQuestion: {question}",
        optional_slots=("context",),
        instruction="Answer the question briefly.",
        metric="token_f1",
    ),
    Template(
        name="chat",
        task="chat",
        wording="",
        instruction="",
        metric="chrf",
    ),
)
TEMPLATES = {template.name: template for template in _TEMPLATES}
