"""Frameworks that call torch.load, unmodified, under a guard: the same weights, bit for bit."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tensorkeep as tk
from tensorkeep.errors import NotSafe

pytestmark = pytest.mark.filterwarnings("ignore")  # what the frameworks say of themselves


def same(one, other):
    assert list(one) == list(other)
    return all(torch.equal(one[name], other[name]) for name in one)


def test_from_pretrained_of_a_bin(tmp_path, hostile_digits):
    from transformers import AutoConfig, GPT2LMHeadModel

    config = AutoConfig.for_model(
        "gpt2", vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16
    )
    model = GPT2LMHeadModel(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with tk.guard(require="safe") as guarded:
        found = GPT2LMHeadModel.from_pretrained(tmp_path, use_safetensors=False)
    assert same(found.state_dict(), model.state_dict())
    assert guarded.log.events[-1].path.endswith("pytorch_model.bin")
    assert guarded.log.events[-1].outcome == "loaded"

    (tmp_path / "pytorch_model.bin").write_bytes(hostile_digits.read_bytes())
    with tk.guard(require="safe") as guarded, pytest.raises((NotSafe, OSError)):
        GPT2LMHeadModel.from_pretrained(tmp_path, use_safetensors=False)
    assert guarded.log.refused


def test_lightning_loads_and_goes_on(tmp_path):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, lr=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch, _index):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

    def trainer(steps):
        return lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )

    torch.manual_seed(0)
    batches = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4)
    first, module = trainer(2), Module(lr=0.5)
    first.fit(module, batches)
    first.save_checkpoint(tmp_path / "full.ckpt")
    with tk.guard(require="safe") as guarded:
        found = Module.load_from_checkpoint(tmp_path / "full.ckpt", weights_only=False)
        resumed = Module()
        trainer(4).fit(resumed, batches, ckpt_path=tmp_path / "full.ckpt")
    assert {event.outcome for event in guarded.log.events} == {"loaded"}
    assert found.hparams.lr == 0.5
    assert same(found.state_dict(), module.state_dict())
    plain = Module()
    trainer(4).fit(plain, batches, ckpt_path=tmp_path / "full.ckpt", weights_only=False)
    assert same(resumed.state_dict(), plain.state_dict())


def test_accelerate_restores_everything(tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    accelerator.backward(model(torch.randn(6, 4)).square().sum())
    optimizer.step()
    accelerator.save_state(str(tmp_path / "state"), safe_serialization=False)
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.randn(3)
    with torch.no_grad():
        model.weight.zero_()
    with tk.guard(require="safe") as guarded:
        accelerator.load_state(str(tmp_path / "state"))
    assert same(model.state_dict(), wanted)
    assert torch.equal(torch.randn(3), drawn)  # the generators, too
    assert {event.outcome for event in guarded.log.events} == {"loaded"}
    assert all(event.inert == [] for event in guarded.log.events)


def test_the_trainer_goes_on(tmp_path):
    from transformers import AutoConfig, GPT2LMHeadModel, Trainer, TrainingArguments

    config = AutoConfig.for_model(
        "gpt2", vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16
    )
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(8)]

    def trainer(steps):
        torch.manual_seed(0)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=steps,
            save_steps=2,
            per_device_train_batch_size=2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        return Trainer(model=GPT2LMHeadModel(config), args=arguments, train_dataset=rows)

    trainer(2).train()
    with tk.guard() as guarded:
        resumed = trainer(4)
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    plain = trainer(4)
    plain.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert same(resumed.model.state_dict(), plain.model.state_dict())
    names = {event.path.rpartition("/")[2] for event in guarded.log.events}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= names
    assert all(event.inert == [] for event in guarded.log.events)
    assert {event.outcome for event in guarded.log.events} == {"loaded"}


def test_the_hub_of_torch(tmp_path, digits, hostile_digits):
    def fetched(path, name):
        return torch.hub.load_state_dict_from_url(
            path.as_uri(), model_dir=str(tmp_path), file_name=name, progress=False
        )

    with tk.guard(require="safe"):
        assert sorted(fetched(digits, "a.pth")) == ["epoch", "model", "optimizer", "val_accuracy"]
        with pytest.raises(NotSafe):
            fetched(hostile_digits, "b.pth")


def test_a_library_that_wraps_torch_load(digits, hostile_digits):
    """As some do at their import: the function is kept, and another is put in its place."""
    kept = torch.load

    def wrapper(*args, **given):
        given.setdefault("weights_only", False)
        return kept(*args, **given)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(torch, "load", wrapper)
        with tk.guard(require="safe"):
            assert torch.load(digits)["epoch"] == 12
            with pytest.raises(NotSafe):
                torch.load(hostile_digits)
        assert torch.load is wrapper
