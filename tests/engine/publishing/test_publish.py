import json
import resource
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import engine.publishing.publish
from engine.language_model import LanguageModel
from engine.method import load_trained
from engine.methods import all_methods, get_method
from engine.publishing.publish import FinishedRun, forms_of, publish
from engine.runs import load_run
from templates.errors import PlanError, RunError
from templates.files import sha256_of_file
from tests.engine.publishing.published import finished_run, record_in, small_dataset
from tests.engine.tiny import ARCHITECTURES, TICKETS

ADAPTER_FILES = [
    "README.md", "adapter_config.json", "adapter_model.safetensors", "studio_run.json",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
MERGED_FILES = [
    "README.md", "config.json", "generation_config.json", "model.safetensors", "studio_run.json",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
NOT_IN_PEFT = [("loha", "gpt2"), ("lokr", "gpt2")]  # whose Conv1D layers peft has neither for
PROMPTS = ["the invoice is wrong\n\n###\n\n", "where is my parcel, i paid twice"]
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


@torch.no_grad()
def logits_of(tuned: LanguageModel) -> torch.Tensor:
    """Of our own model, on unpadded prompts, soft prompt left out."""
    outputs = []
    with tuned.autocast():
        for prompt in PROMPTS:
            ids = torch.tensor([tuned.virtual_token_ids + tuned.encode(prompt)])
            outputs.append(tuned.model(ids).logits[0, tuned.num_virtual_tokens :].float())
    return torch.cat(outputs)


@torch.no_grad()
def logits_elsewhere(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    """Of a model that others loaded, with the published tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    outputs = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        outputs.append(model(input_ids=ids).logits[0, -ids.shape[1] :].float())
    return torch.cat(outputs)


def in_peft(run: FinishedRun, folder: Path) -> torch.nn.Module:
    base = AutoModelForCausalLM.from_pretrained(run.plan.base.id, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft 0.21.2 asks transformers 5.23 by a name on its way out; it must not warn of more.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(base, folder).eval()


IN_PEFT = "adalora ia3 loha lokr lora prefix prompt_tuning ptuning spot".split()
WITH_PEFT = [
    (method, architecture)
    for method in IN_PEFT
    for architecture in ARCHITECTURES
    if (method, architecture) not in NOT_IN_PEFT
]
# One layer makes queries, keys and values; in GPT-NeoX head by head.
WITH_PEFT += [("lora", "phi3"), ("lora", "gpt_neox"), ("ia3", "phi3"), ("lora", "qwen2_moe")]


@pytest.mark.parametrize(("method", "architecture"), WITH_PEFT)
def test_peft_computes_what_we_measured(tmp_path: Path, method: str, architecture: str) -> None:
    run = finished_run(tmp_path, method, architecture)
    publication = publish(run, tmp_path / "out", form="adapter")
    ours = logits_of(load_run(run.plan, run.checkpoints))
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert publication.parity == 0
    assert [file.name for file in publication.files] == ADAPTER_FILES


@in_all_architectures
def test_peft_loads_an_adapter_of_the_top_blocks(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "lora", architecture, top_blocks=1)
    publish(run, tmp_path / "out", form="adapter")
    ours = logits_of(load_run(run.plan, run.checkpoints))
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(ours, theirs, atol=1e-4)


@in_all_architectures
def test_peft_loads_a_qlora_adapter_as_lora(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "qlora", architecture)
    publication = publish(run, tmp_path / "out", form="adapter")
    # The same tensors on the same base in fp32, ours against theirs.
    plain = finished_run(tmp_path / "plain", "lora", architecture)
    lora = load_run(plain.plan, plain.checkpoints)
    load_trained(lora.model, load_file(run.checkpoints / "step-00000001/learned.safetensors"))
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(logits_of(lora), theirs, atol=1e-4)
    assert publication.parity == 0


MERGED = [
    pytest.param(method, precision, options, id=f"{method}-{precision}-{len(options)}")
    for method, precision, options in [
        ("lora", "fp32", {}),
        ("full", "fp32", {}),
        ("lora", "bf16", {}),
        ("full", "bf16", {}),
        ("qlora", "nf4", {}),
        ("qlora", "int8", {}),
        ("loftq", "nf4", {}),
        ("qlora", "nf4", {"targets": "one"}),
        ("ia3", "fp32", {}),
        ("ia3", "nf4", {}),
        ("loha", "fp32", {}),
        ("loha", "bf16", {}),
        ("lokr", "fp32", {}),
        ("lokr", "nf4", {}),
    ]
]


@in_all_architectures
@pytest.mark.parametrize(("method", "precision", "options"), MERGED)
def test_transformers_computes_what_we_measured(
    tmp_path: Path, method: str, precision: str, options: dict[str, object], architecture: str
) -> None:
    if options:  # the layers that were not tuned are in 4 bits too
        options = {"targets": ["c_attn" if architecture == "gpt2" else "q_proj"]}
    run = finished_run(tmp_path, method, architecture, precision, **options)
    publication = publish(run, tmp_path / "out", form="merged")
    ours = logits_of(load_run(run.plan, run.checkpoints))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    exact = precision == "fp32"
    assert model.dtype == (torch.float32 if exact else torch.bfloat16)
    theirs = logits_elsewhere(model, tmp_path / "out")
    # bf16 keeps 8 bits: a merged weight is rounded once more than its parts were
    assert torch.allclose(ours, theirs, atol=1e-4 if exact else 0.1)
    assert publication.parity < (1e-4 if exact else 0.1)
    assert [file.name for file in publication.files] == MERGED_FILES


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe"])
def test_tuned_experts_are_published_in_both_forms(
    tmp_path: Path, architecture: str, form: str
) -> None:
    run = finished_run(tmp_path, "lora", architecture, targets=["all-linear", "experts"])
    publish(run, tmp_path / "out", form=form)
    ours = logits_of(load_run(run.plan, run.checkpoints))
    out = tmp_path / "out"
    model = in_peft(run, out) if form == "adapter" else AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(ours, logits_elsewhere(model.eval(), out), atol=1e-4)


def test_the_adapter_has_exactly_these_keys_and_tensors(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora", "gpt2", targets=["c_attn"])
    publish(run, tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config == {
        "base_model_name_or_path": "./base",
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": 4,
        "revision": None,
        "target_modules": ["c_attn"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    with safe_open(tmp_path / "out/adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == {
            f"base_model.model.transformer.h.{layer}.attn.c_attn.lora_{part}.weight": shape
            for layer in (0, 1)
            for part, shape in (("A", (4, 32)), ("B", (96, 4)))
        }


def test_the_prompt_has_exactly_these_keys_and_tensors(tmp_path: Path) -> None:
    publish(finished_run(tmp_path, "prompt_tuning"), tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert set(config) == {
        "base_model_name_or_path", "inference_mode", "num_attention_heads", "num_layers",
        "num_transformer_submodules", "num_virtual_tokens", "peft_type", "peft_version",
        "prompt_tuning_init", "revision", "task_type", "token_dim",
    }  # fmt: skip
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "prompt_embeddings": (5, 32)
    }


def test_the_zip_holds_the_folder_and_equal_folders_give_equal_zips(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora")
    first = publish(run, tmp_path / "one" / "model", zipped=True)
    second = publish(run, tmp_path / "two" / "model", zipped=True)
    assert first == second
    assert first.archive and first.archive.name == "model.zip"
    assert first.archive.sha256 == sha256_of_file(tmp_path / "one/model.zip")
    with zipfile.ZipFile(tmp_path / "one/model.zip") as pack:
        assert pack.namelist() == [f"model/{name}" for name in ADAPTER_FILES]
        for file in first.files:
            content = (tmp_path / "one/model" / file.name).read_bytes()
            assert pack.read(f"model/{file.name}") == content
            assert len(content) == file.size_bytes
            assert sha256_of_file(tmp_path / "one/model" / file.name) == file.sha256
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["model", "model.zip"]


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_no_file_tells_a_row_or_a_path_of_this_machine(tmp_path: Path, form: str) -> None:
    publish(finished_run(tmp_path, "lora", compared=True), tmp_path / "out", form=form)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert not any(row.fields["text"].encode() in content for row in TICKETS), path.name
        assert str(tmp_path).encode() not in content, path.name
    config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "name_or_path"} & config.keys()


def test_the_record_can_be_read_back(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora", compared=True)
    publication = publish(run, tmp_path / "out", name="My\nmodel")
    record = record_in(tmp_path / "out")
    named = run.plan.base.model_copy(update={"id": "base"})
    assert record.plan == run.plan.model_copy(update={"base": named})
    assert record.plan_digest == run.plan.digest, "of the plan with its path"
    assert run.comparison
    assert record.comparison == run.comparison.model_copy(update={"base_id": "base"})
    assert record.base.id == "base"
    assert (record.name, record.run_id, record.folder) == ("My model", "run-1", "out")
    assert (record.parity, record.effect) == (publication.parity, publication.effect)
    assert record.data.sha256 == run.plan.dataset_sha256
    assert record.data.rows == {"train": 8, "validation": 8, "test": 8}
    assert record.num_trainable == 2 * 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)


@pytest.mark.parametrize(("method", "architecture"), NOT_IN_PEFT)
def test_what_peft_cannot_hold_is_said(tmp_path: Path, method: str, architecture: str) -> None:
    run = finished_run(tmp_path, method, architecture)
    with pytest.raises(PlanError, match=r"peft has no Lo.*Publish it as merged"):
        publish(run, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_every_method_can_be_published(tmp_path: Path) -> None:
    assert all(forms_of(spec) for spec in all_methods().values())
    assert forms_of(get_method("full")) == ("merged",)
    assert forms_of(get_method("prompt_tuning")) == ("adapter",)
    assert forms_of(get_method("qlora")) == ("adapter", "merged")
    assert publish(finished_run(tmp_path, "full"), tmp_path / "out").form == "merged"


@pytest.mark.parametrize(
    ("method", "form", "fix"),
    [
        ("prompt_tuning", "merged", "as adapter"),
        ("full", "adapter", "as merged"),
        ("loftq", "adapter", "as merged"),
    ],
)
def test_a_form_that_the_method_lacks(tmp_path: Path, method: str, form: str, fix: str) -> None:
    with pytest.raises(PlanError, match=f"cannot be published as '{form}'.*{fix}"):
        publish(finished_run(tmp_path, method), tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_an_existing_target_stays_as_it_is(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match=r"something at the place.*\(out\).*Choose a new folder"):
        publish(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]
    (tmp_path / "other.zip").write_text("mine too")
    with pytest.raises(RunError, match=r"zip of this name already \(other.zip\)"):
        publish(run, tmp_path / "other", zipped=True)
    assert not (tmp_path / "other").exists()
    (tmp_path / "empty").mkdir()
    assert publish(run, tmp_path / "empty").folder == "empty"


@pytest.mark.parametrize("name", ["/", "a\nb", "\udcff", "a\u202eb"])
def test_a_name_that_others_cannot_open(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="no name for a folder"):
        publish(finished_run(tmp_path, "lora"), tmp_path / name)


def test_data_or_comparison_of_another_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora", compared=True)
    assert run.comparison
    learned = run.checkpoints / "step-00000001/learned.safetensors"
    assert run.comparison.weights_sha256 == sha256_of_file(learned)
    stranger = run.comparison.model_copy(update={"run_id": "run-2"})
    other = FinishedRun(run.plan, run.checkpoints, run.dataset_folder, stranger)
    with pytest.raises(PlanError, match=r"comparison belongs to another run \(run-2\)"):
        publish(other, tmp_path / "out")
    for sha256 in ("0" * 64, ""):  # trained on since, or compared before hashes were noted
        stale = run.comparison.model_copy(update={"weights_sha256": sha256})
        other = FinishedRun(run.plan, run.checkpoints, run.dataset_folder, stale)
        with pytest.raises(PlanError, match=r"other weights.*\(run-1\)\. Compare again"):
            publish(other, tmp_path / "out")
    template = small_dataset(tmp_path / "data").template
    small_dataset(tmp_path / "data", template.model_copy(update={"stop": " STOP"}))
    with pytest.raises(PlanError, match="data changed since this plan"):
        publish(run, tmp_path / "out")


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, form: str) -> None:
    run = finished_run(tmp_path, "lora")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"The disk is full: .* could not be written"):
            publish(run, tmp_path / "new" / "out", form=form, zipped=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "new").iterdir()) == []


def test_what_does_not_compute_the_same_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = engine.publishing.publish.write_merged

    def spoiled(folder: Path, merged: LanguageModel, *rest: object) -> LanguageModel:
        merged.model.model.embed_tokens.weight.data[7] += 0.5
        return honest(folder, merged, *rest)

    monkeypatch.setattr(engine.publishing.publish, "write_merged", spoiled)
    with pytest.raises(RunError, match="does not compute what was measured: logits differ by"):
        publish(finished_run(tmp_path, "lora"), tmp_path / "new" / "out", form="merged")
    assert list((tmp_path / "new").iterdir()) == []


HELD = [("lora", "fp32"), ("lora", "bf16"), ("qlora", "nf4")]
WEAK = 0.0005  # so near the start that rounding to bf16 moves the logits about as much


@pytest.mark.parametrize("spread", [WEAK, 0.05])
@pytest.mark.parametrize(("method", "precision"), HELD)
def test_a_merge_that_does_nothing_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, precision: str, spread: float
) -> None:
    run = finished_run(tmp_path, method, precision=precision, spread=spread)
    spec = get_method(method)
    idle = replace(spec, merge=spec.detach)
    monkeypatch.setattr(engine.publishing.publish, "get_method", lambda _: idle)
    with pytest.raises(RunError, match="does not compute what was measured"):
        publish(run, tmp_path / "new" / "out", form="merged")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("method", "precision"), HELD)
def test_the_card_admits_a_training_that_rounding_covers(
    tmp_path: Path, method: str, precision: str
) -> None:
    run = finished_run(tmp_path, method, precision=precision, spread=WEAK)
    publication = publish(run, tmp_path / "out", form="merged")
    assert publication.effect < 0.1
    admitted = (
        "Rounding the weights changed about as much" in (tmp_path / "out/README.md").read_text()
    )
    assert admitted == (precision != "fp32")
