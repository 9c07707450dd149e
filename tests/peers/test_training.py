"""Checkpoints of training programs: Lightning, accelerate, the Trainer; timm's and ultralytics'."""

from __future__ import annotations

import argparse
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tensorkeep as tk
from tensorkeep.errors import AmbiguousSection


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="session")
def trained():
    """A model, its optimizer after two steps, and its scheduler."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        model(torch.randn(6, 4)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return model, optimizer, scheduler


def weights_equal(path, state, bits):
    loaded = torch.load(path, weights_only=True)
    assert {name: bits(t) for name, t in loaded.items()} == {
        name: bits(t) for name, t in state.items()
    }


# Lightning -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lightning_checkpoint(room):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its imports and its Trainer say of this machine
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self, lr=0.01):
                super().__init__()
                self.save_hyperparameters()
                self.net = Net()
                self.register_buffer("scale", torch.tensor([1.0, 2.0], dtype=torch.float64))

            def training_step(self, batch, _index):
                return self.net(batch[0]).square().mean()

            def configure_optimizers(self):
                optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

        lightning.seed_everything(0)
        folder = room / "lightning"
        trainer = lightning.Trainer(
            max_steps=2,
            accelerator="cpu",
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[lightning.pytorch.callbacks.ModelCheckpoint(folder)],
        )
        trainer.fit(Module(), DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4))
        trainer.save_checkpoint(folder / "weights.ckpt", weights_only=True)
        trainer.save_checkpoint(folder / "full.ckpt")
    return folder


@pytest.mark.parametrize("name", ["full.ckpt", "weights.ckpt"])
def test_lightning(lightning_checkpoint, name, agree, flat, bits, tmp_path):
    path = lightning_checkpoint / name
    loaded = torch.load(path, weights_only=False)
    agree(path, flat(loaded))
    report = tk.inspect(path)
    assert report.kind == "training_checkpoint"
    assert report.writer.startswith(f"Lightning {loaded['pytorch-lightning_version']}")
    assert report.weights == "state_dict"
    sections = {section.name for section in report.sections}
    # The callback that saves keeps its best score as a tensor.
    full = {"optimizer_states", "callbacks"} if name == "full.ckpt" else set()
    assert sections == {"state_dict"} | full
    assert report.to_dict()["values"]["hyper_parameters"] == {"lr": 0.01}
    done = tk.convert(path, tmp_path / "out.pth", verify=True)
    weights_equal(tmp_path / "out.pth", loaded["state_dict"], bits)
    left = dict(done.left_out)
    assert {"global_step", "loops", "callbacks"} & set(loaded) <= set(left)
    assert ("optimizer_states" in left) == (name == "full.ckpt")


def test_lightning_weights_go_back_into_the_module(lightning_checkpoint, tmp_path):
    tk.convert(lightning_checkpoint / "full.ckpt", tmp_path / "out.pth")
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    assert {name.partition(".")[0] for name in state} == {"net", "scale"}
    Net().load_state_dict(
        {name.removeprefix("net."): tensor for name, tensor in state.items() if name != "scale"}
    )


def test_everything_of_a_lightning_checkpoint(lightning_checkpoint, tmp_path, agree, flat):
    path = lightning_checkpoint / "full.ckpt"
    tk.convert(path, tmp_path / "all.safetensors", section="all")
    agree(tmp_path / "all.safetensors", flat(torch.load(path, weights_only=False)))


# accelerate ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def accelerated(room):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model, optimizer = accelerator.prepare(model, optimizer)
        accelerator.backward(model(torch.randn(6, 4)).square().sum())
        optimizer.step()
        accelerator.save_state(str(room / "state"))
        accelerator.save_state(str(room / "state_bin"), safe_serialization=False)
        accelerator.save_model(model, str(room / "model"))
        accelerator.save_model(model, str(room / "model_parts"), max_shard_size="0.2KB")
        accelerator.save_model(model, str(room / "model_bin"), safe_serialization=False)
        accelerator.save_model(
            model, str(room / "model_bin_parts"), max_shard_size="0.2KB", safe_serialization=False
        )
    return room, model.state_dict()


FOLDERS = ["state", "state_bin", "model", "model_parts", "model_bin", "model_bin_parts"]


@pytest.mark.parametrize("name", FOLDERS)
def test_accelerate(accelerated, name, agree, bits, tmp_path):
    room, state = accelerated
    folder = room / name
    assert tk.inspect(folder).kind == "state_dict"
    agree(folder, state)
    numbered = sorted(path.name for path in folder.glob("*-of-*"))
    assert tk.inspect(folder).parts == numbered
    assert bool(numbered) == ("parts" in name)
    tk.convert(folder, tmp_path / "out.pth", verify=True)
    weights_equal(tmp_path / "out.pth", state, bits)


def test_the_side_files_of_accelerate(accelerated, agree, flat, tmp_path):
    room, _ = accelerated
    path = room / "state" / "optimizer.bin"
    agree(path, flat(torch.load(path, weights_only=False)))
    report = tk.inspect(path)
    assert (report.kind, report.weights) == ("optimizer", None)
    with pytest.raises(AmbiguousSection, match="--section all"):
        tk.convert(path, tmp_path / "out.safetensors")
    tk.convert(path, tmp_path / "out.safetensors", section="all")
    assert tk.scan(room / "state").verdict == "safe"


# the Trainer of transformers -------------------------------------------------------------------


@pytest.fixture(scope="session")
def trainer_run(room):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig, GPT2LMHeadModel, Trainer, TrainingArguments

        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "gpt2", vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16
        )
        rows = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(4)]
        arguments = TrainingArguments(
            output_dir=str(room / "trainer"),
            max_steps=2,
            save_steps=1,
            per_device_train_batch_size=2,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows)
        trainer.train()
    return room / "trainer" / "checkpoint-2", trainer.model.state_dict()


def test_a_folder_of_the_trainer(trainer_run, agree, flat, bits, tmp_path):
    folder, state = trainer_run
    report = tk.inspect(folder)
    assert report.kind == "training_checkpoint"
    assert report.writer.startswith("Hugging Face Trainer")
    assert report.container == "directory"
    assert report.weights == "model"
    names = {section.name for section in report.sections}
    assert {"model", "optimizer"} <= names
    values = report.to_dict()["values"]
    assert values["scheduler"]["last_epoch"] == 2
    assert values["trainer_state"]["global_step"] == 2
    optimizer = torch.load(folder / "optimizer.pt", weights_only=False)
    with tk.open(folder) as ckpt:
        for name, tensor in flat(optimizer).items():
            assert ckpt[f"optimizer.{name}"].read() == bits(tensor), name
        for name in ckpt.select("model"):
            assert ckpt[f"model.{name}"].read() == bits(state[name]), name
        assert ckpt.contents.anomalies == []
    assert tk.verify(folder).ok
    done = tk.convert(folder, tmp_path / "out.pth", verify=True)
    assert "optimizer" in dict(done.left_out)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert all(bits(loaded[name]) == bits(state[name]) for name in loaded)
    assert set(state) - set(loaded) <= {"lm_head.weight"}


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_side_files_of_the_trainer_are_safe(trainer_run, name):
    folder, _ = trainer_run
    assert tk.scan(folder / name).verdict == "safe"


def test_random_states_of_the_trainer(trainer_run, flat, agree):
    """numpy's generator state is an array: a value here, and nothing dangerous."""
    path = trainer_run[0] / "rng_state.pth"
    agree(path, flat(torch.load(path, weights_only=False)))


# timm and ultralytics --------------------------------------------------------------------------


def test_the_layout_of_timm(trained, agree, flat, bits, tmp_path):
    model, optimizer, _ = trained
    ema = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    value = {
        "epoch": 7,
        "arch": "resnet18",
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(lr=0.1, opt="adamw", data="x"),
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        "state_dict_ema": ema,
        "metric": 81.25,
    }
    path = tmp_path / "model_best.pth.tar"
    torch.save(value, path)
    agree(path, flat(value))
    report = tk.inspect(path)
    assert (report.kind, report.weights) == ("training_checkpoint", "state_dict")
    assert report.writer.startswith("timm")
    done = tk.convert(path, tmp_path / "out.pth")
    weights_equal(tmp_path / "out.pth", model.state_dict(), bits)
    assert any("state_dict_ema" in note for note in done.notes)
    assert {"state_dict_ema", "optimizer", "metric"} <= set(dict(done.left_out))
    tk.convert(path, tmp_path / "ema.pth", section="state_dict_ema")
    weights_equal(tmp_path / "ema.pth", ema, bits)


def test_optimizer_state_is_shown_by_parameter_name(trained, tmp_path):
    model, optimizer, _ = trained
    path = tmp_path / "run.pth"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    named = {t["name"]: t["parameter"] for t in tk.inspect(path).to_dict()["tensors"]}
    for number, (name, _) in enumerate(model.named_parameters()):
        assert named[f"optimizer.state.{number}.exp_avg"] == name
        assert named[f"model.{name}"] is None


def ultralytics(model, **more):
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": model,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"task": "detect", "imgsz": 640, "data": "coco.yaml"},
        "train_metrics": {"fitness": 0.5},
        "date": "2025-01-01T00:00:00",
        "version": "8.3.0",
        **more,
    }


@pytest.mark.parametrize("averaged", [False, True])
def test_the_layout_of_ultralytics(trained, bits, tmp_path, averaged):
    """The whole module is pickled: its state dict is recovered without the class."""
    model = trained[0]
    value = ultralytics(None if averaged else model, ema=model if averaged else None)
    path = tmp_path / "yolo.pt"
    torch.save(value, path)
    report = tk.inspect(path)
    where = "ema" if averaged else "model"
    assert [tensor.name for tensor in report.tensors] == [
        f"{where}.{name}" for name in model.state_dict()
    ]
    assert report.writer.startswith("ultralytics 8.3.0")
    assert report.kind == "training_checkpoint"
    assert report.weights == where
    for options in ({}, {"section": where}):
        tk.convert(path, tmp_path / "out.pth", overwrite=True, **options)
        weights_equal(tmp_path / "out.pth", model.state_dict(), bits)
    scanned = tk.scan(path)
    assert scanned.verdict == "suspicious"
    assert "pickle/unknown-class" in {found.rule for found in scanned.findings}


def test_a_whole_model_beside_an_optimizer(trained, bits, tmp_path):
    """The optimizer's tensors must not be taken for the weights."""
    model, optimizer, _ = trained
    path = tmp_path / "last.pt"
    torch.save(ultralytics(model, optimizer=optimizer.state_dict()), path)
    report = tk.inspect(path)
    assert report.weights == "model"
    assert {section.name for section in report.sections} == {"model", "optimizer"}
    done = tk.convert(path, tmp_path / "out.pth")
    assert "optimizer" in dict(done.left_out)
    weights_equal(tmp_path / "out.pth", model.state_dict(), bits)
    tk.convert(path, tmp_path / "all.pth", section="all")
    loaded = torch.load(tmp_path / "all.pth")
    assert loaded.keys() >= {"model", "optimizer", "epoch"}
    assert [*loaded["model"]] == [*model.state_dict()]


def test_a_whole_model_beside_its_averaged_state(trained, bits, tmp_path):
    """The weights are not quietly replaced by the averaged ones."""
    model = trained[0]
    path = tmp_path / "last.pt"
    averaged = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    torch.save(ultralytics(model, ema=averaged, updates=10), path)
    tk.convert(path, tmp_path / "out.pth")
    weights_equal(tmp_path / "out.pth", model.state_dict(), bits)
