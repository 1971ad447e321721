"""The training core: plan, cost, train, compare, publish. No browser and no database here.

Shapes, used in docstrings and beside the lines where a shape changes:
    B batch, T tokens, D width, H heads, R rank, P prompt tokens, V vocabulary, L labels, N items

In the order in which things happen:

    plan.py             TrainPlan: all that a run depends on
    model_folder.py     is this folder safe to open?
    bases.py            which bases there are to choose from
    base_model.py       a name -> a model in memory
    language_model.py   model, tokenizer, precision, soft prompt
    attention.py        attention over packed rows, fast to train on processors
    layer_values.py     a number for some layers, another for the rest
    layers.py           finding and exchanging linear layers
    activation_functions.py  fewer tensors kept by functions that are written out
    experts.py          3-D weights of experts, found and applied
    quantise.py         linear layers in 8 and 4 bits
    reference_quantisers.py  8 and 4 bits, written to be read, and the errors they make
    method.py           what a tuning method is
    methods/            one file per method
    lora_experts.py     low-rank updates of experts
    lora_adapter.py     a LoRA adapter of the `peft` library in our words
    peft_adapter.py     other adapters of that library, looked through
    planning/           what a plan will cost, before it runs; what the model will read
    encode.py           example -> token ids and what the loss sees of them
    batches.py          items of like length -> packed or padded tensors
    loss.py             cross-entropy on supervised tokens, never all logits at once
    packing.py          which fast paths are right for a model: tried out when it is loaded
    stem.py             frozen blocks run once an example, and are kept
    optimizers.py       AdamW, and LOMO, which keeps no gradients
    schedules.py        learning rate over the run
    events.py           what a run reports
    answering/          text and label scores from a model, fast
    sampling.py         what the model in training answers to a few examples
    trainer.py          the loop, a generator of events
    checkpoints.py      found, verified and pruned, without torch
    checkpoint_tensors.py  saved whole or not at all, and read
    attempts.py         one attempt at a job: its events, written and read
    job_status.py       where a job stands: a fold over events and liveness
    jobs.py             a job as a folder
    liveness.py         is that process still the one we mean?
    adapter_import.py   an adapter folder from anywhere -> a model to use
    adapter_exchange.py one base in memory, whose adapter is exchanged, merged, unmerged
    adapter_layers.py   layers in which every token goes through its own row's adapter
    adapter_combination.py  several LoRA adapters, weighted and added up: again one
    adapter_bank.py     one base, many adapters: every row of a batch has its own
    prompt_sources.py   prompts of finished runs that a new run may start from
    runs.py             plan -> training, finished run -> model
    comparing/          the tuned model against prompting, and the verdict
    trying.py           base and tuned model answer one text
    inside.py           which layers moved, in how many directions; what a prompt resembles
    service.py          the resident child of the web process
    publishing/         adapters, merged models, cards
"""
