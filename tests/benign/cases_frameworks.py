"""What real frameworks write: Lightning, transformers, accelerate. Each trains once, offline."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import torch  # noqa: E402
from writing import Case  # noqa: E402


def _room() -> Path:
    return Path(tempfile.mkdtemp(prefix="benign-"))


def _data(count: int = 8) -> torch.utils.data.Dataset:
    return torch.utils.data.TensorDataset(torch.ones(count, 4), torch.ones(count, 2))


def _quietly(train: Callable[[], Path]) -> Callable[[], Path]:
    """Once, without what the framework says of this machine."""

    def run() -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return train()

    return cache(run)


@_quietly
def lightning() -> Path:
    import logging

    import lightning
    from lightning.pytorch import callbacks

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self, lr=0.01, betas=(0.9, 0.99), note=None, sizes=None):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch, _):
            loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    class Data(lightning.LightningDataModule):
        def __init__(self, size=2):
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self):
            return torch.utils.data.DataLoader(_data(), batch_size=self.hparams.size)

    room = _room()
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, default_root_dir=room,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[
            callbacks.ModelCheckpoint(room, monitor="loss", save_top_k=2, save_last=True),
            callbacks.EarlyStopping("loss", patience=3),
            callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=1),
            callbacks.Timer("00:01:00:00"),
            callbacks.LambdaCallback(),
        ],
    )  # fmt: skip
    trainer.fit(Module(sizes=[1, 2], note={"a": 1}), Data())
    trainer.save_checkpoint(room / "final.ckpt")
    trainer.save_checkpoint(room / "weights.ckpt", weights_only=True)
    return room


@_quietly
def trainer() -> Path:
    import transformers

    transformers.logging.set_verbosity_error()
    room = _room()
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        vocab_size=16, max_position_embeddings=8,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    rows = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor(n % 2)} for n in range(4)]
    arguments = transformers.TrainingArguments(
        room, max_steps=2, save_steps=2, use_cpu=True, report_to=[], disable_tqdm=True,
        lr_scheduler_type="cosine", warmup_steps=1, per_device_train_batch_size=2,
    )  # fmt: skip
    transformers.Trainer(model, arguments, train_dataset=rows).train()
    return room / "checkpoint-2"


@_quietly
def pretrained() -> Path:
    import transformers

    transformers.logging.set_verbosity_error()
    room = _room()
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=64, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(room / "whole")
    model.save_pretrained(room / "shards", max_shard_size="3KB")
    torch.save(model.state_dict(), room / "pytorch_model.bin")
    return room


@_quietly
def accelerate() -> Path:
    from accelerate import Accelerator
    from accelerate.data_loader import SeedableRandomSampler
    from accelerate.utils import save

    room = _room()
    worker = Accelerator(cpu=True)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    loader = torch.utils.data.DataLoader(_data(), batch_size=2, shuffle=True)
    model, optimizer, scheduler, loader = worker.prepare(model, optimizer, scheduler, loader)
    counter = torch.nn.BatchNorm1d(2)
    worker.register_for_checkpointing(counter)
    for given, wanted in loader:
        worker.backward((model(given) - wanted).square().mean())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    worker.save_state(room / "safe")
    sampler = SeedableRandomSampler(_data(), data_seed=3)
    save(sampler, room / "safe" / "sampler.bin", safe_serialization=False)
    worker.save_state(room / "bin", safe_serialization=False)
    return room


def copied(train: Callable[[], Path], name: str, folder: Path) -> Path:
    source = train() / name
    if source.is_dir():
        return Path(shutil.copytree(source, folder / source.name))
    return Path(shutil.copy(source, folder))


LIGHTNING = ("final.ckpt", "weights.ckpt", "last.ckpt")
TRAINER = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "training_args.bin",
)
PRETRAINED = ("whole/model.safetensors", "shards", "pytorch_model.bin")
ACCELERATE = (
    "safe/model.safetensors", "safe/optimizer.bin", "safe/scheduler.bin", "safe/sampler.bin",
    "safe/random_states_0.pkl", "safe/custom_checkpoint_0.pkl", "bin/pytorch_model.bin",
)  # fmt: skip

CASES: dict[str, Case] = {
    **{f"lightning/{name}": partial(copied, lightning, name) for name in LIGHTNING},
    **{f"trainer/{name}": partial(copied, trainer, name) for name in TRAINER},
    **{f"transformers/{name}": partial(copied, pretrained, name) for name in PRETRAINED},
    **{f"accelerate/{name}": partial(copied, accelerate, name) for name in ACCELERATE},
}
