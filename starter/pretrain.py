"""Pre-train the starter model from nothing, within a budget of CPU minutes.

    STUDIO_DATA=/path/to/data python starter/pretrain.py --out starter/model

The steps: read the corpus, train a byte-level BPE tokenizer, pack tokens, train a small Llama with
Muon and AdamW until the CPU budget is spent, measure held-out losses, save a Hugging Face folder.
Shapes: B batch, T tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import math
import os
import sys
import time
from pathlib import Path

# Read when torch loads: on a busy machine, waiting threads must sleep, not burn the budget.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from card import write_card
from corpus import END_OF_TEXT, MIX, CorpusError, load_documents, read_storybook_authors
from fast_forward import FastForward
from muon import Muon
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 4096
CONTEXT = 512
SHORT_CONTEXT = 256  # cheaper attention for the first part of the run
SHORT_SHARE = 0.6
TOKENIZER_BYTES = 15_000_000
TOKENS_PER_CPU_SECOND = 6000  # more than seen on our machine: sizes the token stream
SAVE_EVERY_CPU_SECONDS = 300
NUM_THREADS = 2


def keep_freed_memory() -> None:
    """Ask glibc to reuse large buffers: page faults cost a third of the time otherwise."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def train_tokenizer(documents: dict[str, list[str]], seed: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of VOCABULARY entries, digits apart, on a sample of the mix."""
    generator = np.random.default_rng(seed)
    sample: list[str] = []
    for name, share in MIX.items():
        num_bytes = 0
        for index in generator.permutation(len(documents[name])):
            sample.append(documents[name][index])
            num_bytes += len(sample[-1])
            if num_bytes > share * TOKENIZER_BYTES:
                break
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> list[np.ndarray]:
    """Return the token ids of each document, without special tokens."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(documents)
    return [np.array(encoding.ids, dtype=np.int16) for encoding in encodings]


def pack(
    tokenizer: PreTrainedTokenizerFast,
    documents: dict[str, list[str]],
    num_tokens: int,
    seed: int,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mix the sources by the shares of MIX into one stream of tokens.

    Args:
        tokenizer: turns documents into ids.
        documents: training documents by source.
        num_tokens: length of the stream.
        seed: decides which documents, in which order.

    Returns:
        The stream (num_tokens,) int16, where each document follows an end-of-text token, and the
        number of times each source is repeated in it.
    """
    generator = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    epochs: dict[str, float] = {}
    for name, share in MIX.items():
        source, wanted, used = documents[name], share * num_tokens, 0
        num_documents = 0
        while used < wanted:
            order = generator.permutation(len(source))
            for start in range(0, len(order), 256):
                batch = encode(tokenizer, [source[i] for i in order[start : start + 256]])
                chosen.extend(batch)
                num_documents += len(batch)
                used += sum(len(ids) + 1 for ids in batch)
                if used >= wanted:
                    break
        epochs[name] = num_documents / len(source)
    separator = np.array([tokenizer.eos_token_id], dtype=np.int16)
    pieces = [piece for i in generator.permutation(len(chosen)) for piece in (separator, chosen[i])]
    return torch.from_numpy(np.concatenate(pieces)[:num_tokens]), epochs


def new_model(num_layers: int, seed: int) -> LlamaForCausalLM:
    """Return the untrained model in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:  # each layer starts as the identity
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def make_optimizers(
    model: LlamaForCausalLM, muon_rate: float, adam_rate: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices (or nothing, at rate 0) and AdamW for the rest."""
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2 and muon_rate > 0]
    taken = {id(parameter) for parameter in hidden}
    rest = [p for p in model.parameters() if id(p) not in taken]
    adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(hidden, lr=muon_rate), adam] if hidden else [adam]


def rate_factor(progress: float) -> float:
    """Return the learning-rate factor: short warm-up, flat, linear cool-down to zero."""
    return min(1.0, progress / 0.02 + 0.01, (1.0 - progress) / 0.6)


def train(
    model: LlamaForCausalLM, stream: torch.Tensor, options: argparse.Namespace, out: Path | None
) -> dict[str, float]:
    """Train until the CPU budget is spent; the schedule follows the CPU time consumed.

    Args:
        model: the float32 model, changed in place.
        stream: the packed tokens.
        options: the command line.
        out: where to save an unfinished model now and then; None saves nothing.

    Returns:
        Figures: steps, tokens, cpu_seconds, wall_seconds, last_loss.
    """
    budget_seconds = options.cpu_minutes * 60
    optimizers = make_optimizers(model, options.muon_rate, options.adam_rate)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    forwards = {n: FastForward(model, n, torch.bfloat16) for n in (SHORT_CONTEXT, CONTEXT)}
    start_cpu, start_wall = time.process_time(), time.time()
    step = position = seen = 0
    average_loss, used, last_cost, next_save = math.nan, 0.0, 0.0, float(SAVE_EVERY_CPU_SECONDS)
    while used + last_cost / 2 < budget_seconds:
        progress = used / budget_seconds
        num_tokens = SHORT_CONTEXT if progress < SHORT_SHARE else CONTEXT
        if position + options.batch_tokens >= len(stream):
            position = 0
        block = stream[position : position + options.batch_tokens + 1].long()
        position += options.batch_tokens
        tokens, targets = block[:-1].view(-1, num_tokens), block[1:].view(-1, num_tokens)
        loss = forwards[num_tokens](tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * rate_factor(progress)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen = step + 1, seen + options.batch_tokens
        average_loss = loss.item() if step == 1 else 0.95 * average_loss + 0.05 * loss.item()
        last_cost, used = time.process_time() - start_cpu - used, time.process_time() - start_cpu
        if step % 20 == 0:
            print(
                f"step {step}  cpu {used:.0f} s  tokens {seen}  loss {average_loss:.3f}", flush=True
            )
        if out is not None and used > next_save:
            save_weights(model, out)
            next_save += SAVE_EVERY_CPU_SECONDS
    return {
        "steps": step,
        "tokens": seen,
        "cpu_seconds": round(used, 1),
        "wall_seconds": round(time.time() - start_wall, 1),
        "last_loss": round(average_loss, 4),
    }


@torch.no_grad()
def evaluate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: dict[str, list[str]],
    limit: int = 200,
) -> dict[str, dict[str, float]]:
    """Measure the loss on held-out documents with the library's forward.

    Each document is scored alone, after one end-of-text token, up to the context length.

    Args:
        model: any precision.
        tokenizer: its tokenizer.
        documents: held-out documents by source.
        limit: at most so many documents per source.

    Returns:
        Per source: documents, tokens, loss_per_token (nats), bits_per_byte.
    """
    model.eval()
    losses: dict[str, dict[str, float]] = {}
    for name, source in documents.items():
        total, num_tokens, num_bytes = 0.0, 0, 0
        for ids in encode(tokenizer, source[:limit]):
            ids = ids[: CONTEXT - 1]
            row = torch.tensor([[tokenizer.eos_token_id, *ids.tolist()]])
            logits = model(row[:, :-1]).logits[0].float()
            total += F.cross_entropy(logits, row[0, 1:], reduction="sum").item()
            num_tokens += len(ids)
            num_bytes += len(str(tokenizer.decode(ids.tolist())).encode())
        losses[name] = {
            "documents": min(limit, len(source)),
            "tokens": num_tokens,
            "loss_per_token": round(total / num_tokens, 4),
            "bits_per_byte": round(total / num_bytes / math.log(2), 4),
        }
    return losses


def save_weights(model: LlamaForCausalLM, out: Path) -> LlamaForCausalLM:
    """Save a bfloat16 copy of the model as a Hugging Face folder and return the copy."""
    rounded: LlamaForCausalLM = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    rounded.config.dtype = torch.bfloat16
    rounded.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, max_new_tokens=64, do_sample=False
    )
    rounded.save_pretrained(out)
    return rounded


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; the data folder comes from --data or STUDIO_DATA.

    Args:
        arguments: the words after the command; None reads the real command line.

    Returns:
        The options; `data` is always set.
    """
    parser = argparse.ArgumentParser(description="Pre-train the starter model.")
    default = os.environ.get("STUDIO_DATA")
    parser.add_argument("--data", type=Path, default=default, help="default: $STUDIO_DATA")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--cpu-minutes", type=float, default=30.0, help="budget over all threads")
    parser.add_argument("--seed", type=int, default=0, help="documents, order and first weights")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--muon-rate", type=float, default=0.03, help="0: AdamW for everything")
    parser.add_argument("--adam-rate", type=float, default=0.006)
    parser.add_argument("--trial", action="store_true", help="measure only: save nothing")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error(
            "no training text: set the environment variable STUDIO_DATA (or --data) to a folder "
            "with text/ and tasks/"
        )
    return options


def main() -> int:
    """Run all steps and return the exit status."""
    options = read_options()
    keep_freed_memory()
    torch.set_num_threads(NUM_THREADS)
    torch.set_float32_matmul_precision("medium")
    try:
        documents, held_out = load_documents(options.data, options.seed)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    tokenizer = train_tokenizer(documents, options.seed)
    num_tokens = int(options.cpu_minutes * 60 * TOKENS_PER_CPU_SECOND) + options.batch_tokens
    stream, epochs = pack(tokenizer, documents, num_tokens, options.seed)
    preparation = time.process_time()
    print(f"prepared {len(stream)} tokens in {preparation:.0f} CPU seconds", flush=True)
    model = new_model(options.layers, options.seed)
    if not options.trial:
        tokenizer.save_pretrained(options.out)
    training = train(model, stream, options, None if options.trial else options.out)
    figures: dict[str, object] = dict(training)
    losses = evaluate(model, tokenizer, held_out, limit=40 if options.trial else 200)
    print(json.dumps({"figures": figures, "held_out": losses}, indent=1))
    if options.trial:
        mean = sum(losses[name]["loss_per_token"] * share for name, share in MIX.items())
        print(f"TRIAL {vars(options)} held-out loss over the mix {mean:.4f} {figures}")
        return 0
    rounded = save_weights(model, options.out)
    seen_share = training["tokens"] / len(stream)
    figures |= {
        "preparation_cpu_seconds": round(preparation, 1),
        "parameters": model.num_parameters(),
        "mix": MIX,
        "storybook_authors": read_storybook_authors(options.data),
        "passes_over_source": {n: round(count * seen_share, 2) for n, count in epochs.items()},
        "held_out_float32": losses,
        "held_out_saved_bfloat16": evaluate(rounded, tokenizer, held_out),
        "options": {
            name: value for name, value in vars(options).items() if name not in ("data", "out")
        },
    }
    record = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (options.out / "training.json").write_text(record, encoding="utf-8")
    write_card(options.out, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
