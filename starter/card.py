"""The model card: written from the measured figures, so that text and numbers agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FRONT_MATTER = """\
---
license: cc-by-4.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- from-scratch
- cpu
---
"""

SOURCES = """\
| source in the mix | what it is | licence | attribution |
|---|---|---|---|
| tinystories | sample of TinyStories | CDLA-Sharing-1.0 | Ronen Eldan and Yuanzhi Li, Microsoft |
| african_storybook | picture-book stories | CC BY | African Storybook initiative, \
africanstorybook.org; authors below |
| openstax | 18 textbooks, prose paragraphs only | CC BY 4.0 | OpenStax, Rice University, \
https://openstax.org; titles below |
| gutenberg | dialogue-rich passages of children's and adventure books by Alcott, Andersen, Baum, \
Burnett, Carroll, Grimm, Lang, London, Montgomery, Nesbit, Potter | public domain in the USA | \
none needed |
| labels, few_shot | Snips voice commands (train) | CC0 | Snips |
| labels, few_shot | CLINC150 (train) | CC BY 3.0 | Stefan Larson and others, 2019 |
| questions | GSM8K (train) | MIT | OpenAI |
| questions | chain-of-thought collection (train): AQuA, CREAK, ECQA, GSM8K, QASC, SenseMaking, \
StrategyQA | Apache-2.0 | Google, FLAN collection |

OpenStax titles: American Government; Astronomy; Business Ethics; College Success; Entrepreneurship;
Introduction to Anthropology; Introduction to Business; Introduction to Intellectual Property;
Introduction to Philosophy; Introduction to Political Science; Introduction to Sociology; Life,
Liberty, and the Pursuit of Happiness; Microbiology; Principles of Economics; Psychology; U.S.
History; World History; Writing Guide. The text was changed: lists, links, headings and short
paragraphs were dropped, quotation marks made plain.
"""

USE = """\
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("starter/model", local_files_only=True)
model = AutoModelForCausalLM.from_pretrained("starter/model", local_files_only=True)
inputs = tokenizer("Once upon a time, there was a little dog.", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]))
```

There is no chat template. Every training document followed `<|endoftext|>`, which is the beginning,
end and padding token. Documents with a task have the form `{text}\\n\\n###\\n\\n {label} END`.
"""

LIMITS = """\
## Limits

* It is a toy: it exists so that a fine-tuning tool can be tried in seconds on a laptop, offline. It
  knows next to nothing about the world, invents facts, cannot calculate, and answers only questions
  that fine-tuning taught it. Do not use it for decisions.
* English only. Old books bring the views of their time, some of them offensive; nothing was
  filtered for that, and no safety training took place.
* At most 512 tokens.
* Greedy text soon repeats itself; sampling at temperature 0.8 reads better.
* It names the intent of commands like those of Snips and CLINC150, but it did not learn to take
  arbitrary labels from demonstrations. On the last item of held-out few-shot documents the shipped
  weights answer exactly right in 44 of 63 with real label names (chance 0.22) and in 2 of 52 with
  made-up ones (chance 0.21).
* Held-out passages come from the same books and tables as the training text, so the losses above
  flatter the model compared with text from elsewhere. GSM8K questions occur in two of the question
  sets; both copies are on the same side of the split.
"""


def write_card(out: Path, figures: dict[str, Any]) -> None:
    """Write README.md beside the weights.

    Args:
        out: the model folder.
        figures: what `pretrain.main` measured.
    """
    options, losses = figures["options"], figures["held_out_float32"]
    rounded = figures["held_out_saved_bfloat16"]
    cpu_minutes = figures["cpu_seconds"] / 60
    rows = "\n".join(
        f"| {name} | {share:.0%} | {figures['passes_over_source'][name]:.2f} | "
        f"{losses[name]['documents']} | {losses[name]['loss_per_token']:.3f} | "
        f"{losses[name]['bits_per_byte']:.3f} | {rounded[name]['loss_per_token']:.3f} |"
        for name, share in figures["mix"].items()
    )
    hidden = (
        f"Muon (rate {options['muon_rate']}) for the hidden matrices and AdamW (rate "
        f"{options['adam_rate']}) for embedding and norms"
        if options["muon_rate"]
        else f"AdamW (rate {options['adam_rate']})"
    )
    text = f"""{FRONT_MATTER}
# Starter: a {figures["parameters"] / 1e6:.2f} M parameter English base model

A Llama of {options["layers"]} layers, width 256, 4 heads, context 512, tied embeddings, with its
own byte-level BPE of 4,096 entries, pre-trained from nothing by `starter/pretrain.py`.

{USE}
## Training

* {cpu_minutes:.1f} CPU minutes over all threads ({figures["wall_seconds"] / 60:.1f} minutes by the
  clock, 2 threads, a shared machine), {figures["steps"]:,} steps, **{figures["tokens"]:,} tokens**
  seen ({figures["tokens"] / figures["cpu_seconds"]:,.0f} per CPU second), seed {options["seed"]}.
  Before that: {figures["preparation_cpu_seconds"]:.0f} CPU seconds to start, to read the text, to
  train the tokenizer and to encode.
* Batches of {options["batch_tokens"]:,} tokens, in rows of 256 for the first 60 % of the time, then
  of 512. Documents are packed, attention may cross their borders, and the loss
  counts every token.
* {hidden}.
  The rate follows the CPU time consumed: warm-up over 2 %, flat, then linear to zero over the last
  60 %. float32 weights, bfloat16 arithmetic; saved in bfloat16.

## Held-out losses

About 1 % of the documents (4 % of the two small sources) were kept out, at most 200 per source
scored, each alone and up to 511 tokens. Loss in nats per token; the share is that of the training
tokens, the passes tell how often each document of the source was seen on average.

| source | share | passes | documents | loss | bits per byte | loss, saved bfloat16 |
|---|---|---|---|---|---|---|
{rows}

{LIMITS}
## Sources

{SOURCES}
African Storybook authors: {", ".join(figures["storybook_authors"])}. The text was changed: page
marks and credits were dropped, pages joined.

None of the texts is contained in this folder. The weights are offered under CC BY 4.0, with the
attributions above.
"""
    (out / "README.md").write_text(text, encoding="utf-8")
