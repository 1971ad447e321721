"""What leaves the studio, and the proof that it computes what was measured.

publish.py           a finished run -> a folder, read back and checked
publication.py       Publication, RunRecord: the values; free of torch
adapter_folder.py    an adapter as the `peft` library reads it
combined.py          several LoRA adapters -> one adapter folder
merged_folder.py     an ordinary model folder
parity.py            the same logits before and after
prompt_format.py     how to ask the model, in words for others
card.py              the model card, with what was measured
snippet.py           code that runs as it stands in the card
published_files.py   hashes and zip
hub_upload.py        a folder onto the Hub, as one commit or not at all
"""
