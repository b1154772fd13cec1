"""The loop that all trainings share: AdamW, warm-up and linear fall, accumulation, clipping, checkpoints, early stop.

A run can be interrupted at any moment and taken up again: the checkpoint is written beside its place and moved there,
the order of batches follows from the seed, and what is best on the development split is kept apart from what is last.
One process or several: `accelerate launch` sets their number, and each takes its share of every step's batches.
"""

from __future__ import annotations

import atexit
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chatbot.errors import DiskFull, TrainingFailed, room

CHECKPOINT = "checkpoint"
_FEW = 1_000_000  # bytes free: fewer, and a library that could not write says not why


@dataclass(frozen=True, slots=True)
class Schedule:
    epochs: float = 1.0
    learning_rate: float = 3e-4
    warmup: float = 0.05  # share of the steps
    accumulate: int = 1  # batches a step
    clip: float = 1.0  # norm of the gradient
    weight_decay: float = 0.0
    seed: int = 0
    patience: int = 0  # measurements without a better one after which it stops; 0: never
    measure_every: int = 0  # steps; 0: at the end of each epoch
    save_every: float = 300.0  # seconds


class Task(Protocol):
    module: nn.Module  # its forward gives (sum of losses, weight) of a batch

    def epoch(self, number: int) -> Sequence[Any]:
        """The batches of an epoch, always the same for the same number."""

    def development(self) -> Sequence[Any]:
        """Batches to measure on; none: the last state counts as the best."""

    def save(self, folder: Path) -> None:
        """What a person uses of the trained model."""


@dataclass(slots=True)
class Progress:
    """Where a run stands; also the run's record."""

    step: int = 0
    steps: int = 0
    loss: float = math.nan  # nats a token, over the last steps
    tokens_per_s: float = 0.0
    seconds_left: float = math.nan
    curve: list[dict[str, float]] = field(default_factory=list)  # {"step", "loss"} and {"step", "development"}
    best: float = math.inf
    since_best: int = 0
    finished: bool = False


def run(
    task: Task, schedule: Schedule, out: Path, report: Callable[[Progress], None] = lambda progress: None
) -> Progress:
    """Train, and leave the best state as `task.save(out)` and the run's state under out/checkpoint.

    A checkpoint of the same task that is there is gone on from. Raises TrainingFailed for a loss that is not finite,
    DiskFull where there is no room for either: the checkpoint before stays.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    atexit.register(accelerator.end_training)  # its threads, left running, end a process of several by "terminate"
    trainable = [parameter for parameter in task.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    module, optimizer = accelerator.prepare(task.module, optimizer)
    share, whole = accelerator.process_index, accelerator.num_processes * schedule.accumulate
    first = task.epoch(0)
    per_epoch = max(1, len(first) // whole)
    progress = _resume(task.module, optimizer, out) or Progress()
    if progress.finished:
        raise TrainingFailed(f"{str(out)!r} holds a training that is finished: give another --out")
    progress.steps = max(1, round(per_epoch * schedule.epochs))
    measure_every = schedule.measure_every or per_epoch
    main = accelerator.is_main_process
    started, done_before, saved, seen = time.monotonic(), progress.step, time.monotonic(), 0.0
    recent: list[float] = []
    module.train()
    while progress.step < progress.steps and not (schedule.patience and progress.since_best >= schedule.patience):
        number, place = divmod(progress.step, per_epoch)
        if place == 0 or progress.step == done_before:
            order = first if number == 0 else task.epoch(number)
        torch.manual_seed(schedule.seed + progress.step)  # dropout too is the same after an interruption
        start = place * whole + share * schedule.accumulate
        batches = [order[(start + each) % len(order)] for each in range(schedule.accumulate)]
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _height(progress.step, progress.steps, schedule.warmup)
        loss, weight = _step(accelerator, module, optimizer, batches, trainable, schedule.clip)
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss of step {progress.step + 1} is {loss}: lower --learning-rate (it is "
                f"{schedule.learning_rate:g}); the checkpoint before it is kept in {str(out / CHECKPOINT)!r}"
            )
        progress.step += 1
        seen += weight * accelerator.num_processes
        recent = [*recent[-19:], loss]
        elapsed = time.monotonic() - started
        progress.loss = sum(recent) / len(recent)
        progress.tokens_per_s = seen / elapsed
        progress.seconds_left = elapsed / (progress.step - done_before) * (progress.steps - progress.step)
        progress.curve.append({"step": progress.step, "loss": loss})
        if progress.step % measure_every == 0 or progress.step == progress.steps:
            _measure(accelerator, task, module, progress, out)
        if main and time.monotonic() - saved > schedule.save_every:
            _save(task.module, optimizer, progress, out)
            saved = time.monotonic()
        if main:
            report(progress)
    progress.finished = True
    if main:
        _save(task.module, optimizer, progress, out)
    return progress


def leads() -> bool:
    """Whether this process is the one of those that train together which writes and reports."""
    return bool(PartialState(cpu=not torch.cuda.is_available()).is_main_process)


def _height(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share: up over the warm-up, then down in a line to nothing."""
    rise = max(1.0, warmup * steps)
    return min((step + 1) / rise, max(0.0, (steps - step) / max(1.0, steps - rise)))


def _step(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: Any,
    batches: Sequence[Any],
    trainable: Sequence[Tensor],
    clip: float,
) -> tuple[float, float]:
    """One update: (loss a token, tokens)."""
    total = weight = 0.0
    for each in batches:
        loss, tokens = module(each)
        accelerator.backward(loss / tokens / len(batches))
        total += float(loss.detach())
        weight += float(tokens)
    if math.isfinite(total):
        accelerator.clip_grad_norm_(trainable, clip)
        optimizer.step()
    optimizer.zero_grad()
    return total / weight, weight


def _measure(accelerator: Accelerator, task: Task, module: nn.Module, progress: Progress, out: Path) -> None:
    """The development split's loss a token; what is best so far is saved."""
    batches = task.development()
    if batches:
        module.eval()
        sums = torch.zeros(2)
        with torch.no_grad():
            for each in batches[accelerator.process_index :: accelerator.num_processes]:
                loss, tokens = module(each)
                sums += torch.tensor([float(loss), float(tokens)])
        module.train()
        total, tokens = accelerator.reduce(sums.to(accelerator.device)).tolist()
        progress.curve.append({"step": progress.step, "development": total / tokens})
        progress.since_best = 0 if total / tokens < progress.best else progress.since_best + 1
        progress.best = min(progress.best, total / tokens)
    if accelerator.is_main_process and progress.since_best == 0:
        with room(out, _FEW):
            task.save(out)


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def _save(module: nn.Module, optimizer: Any, progress: Progress, out: Path) -> None:
    """The checkpoint, whole or not at all: the one before stays until this one is written."""
    fresh, place, old = (out / name for name in (f".{CHECKPOINT}", CHECKPOINT, f".{CHECKPOINT}-old"))
    _remove(fresh)
    try:
        with room(out, _FEW):
            _write(module, optimizer, progress, fresh)
    except DiskFull:
        _remove(fresh)
        raise
    _remove(old)
    if place.exists():
        place.replace(old)
    fresh.replace(place)
    _remove(old)


def _write(module: nn.Module, optimizer: Any, progress: Progress, folder: Path) -> None:
    folder.mkdir(parents=True)
    weights = {name: each.detach().contiguous() for name, each in _trained(module).items()}
    save_file(weights, folder / "weights.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")


def _resume(module: nn.Module, optimizer: Any, out: Path) -> Progress | None:
    place, old = out / CHECKPOINT, out / f".{CHECKPOINT}-old"
    if not place.exists() and old.exists():  # the process ended between the two moves
        old.replace(place)
    if not place.exists():
        return None
    weights = load_file(place / "weights.safetensors")
    mine = _trained(module)
    if {name: each.shape for name, each in weights.items()} != {name: each.shape for name, each in mine.items()}:
        raise TrainingFailed(
            f"{str(place)!r} is the checkpoint of another training: give another --out, or delete that folder"
        )
    with torch.no_grad():
        for name, each in mine.items():
            each.copy_(weights[name])
    optimizer.load_state_dict(torch.load(place / "optimizer.pt", weights_only=True))
    return Progress(**json.loads((place / "progress.json").read_text(encoding="utf-8")))


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
