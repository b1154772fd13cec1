"""A training's curve: its figures as JSON always, as a picture where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from chatbot.train.loop import Progress


def write(progress: Progress, folder: Path) -> None:
    """curve.json and, with matplotlib (`pip install marginalia-chat[bench]`), curve.png in the folder."""
    (folder / "curve.json").write_text(json.dumps(progress.curve), encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        _draw(progress, folder / "curve.png")


def _draw(progress: Progress, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    learned = [(point["step"], point["loss"]) for point in progress.curve if "loss" in point]
    measured = [(point["step"], point["development"]) for point in progress.curve if "development" in point]
    axes.plot(*zip(*learned, strict=True), linewidth=0.5, color="#9aa5b1", label="a step")
    axes.plot(
        [step for step, _ in learned], _smooth([loss for _, loss in learned]), color="#1f77b4", label="mean of 20"
    )
    if measured:
        axes.plot(*zip(*measured, strict=True), marker="o", color="#d62728", label="development split")
    axes.set(xlabel="step", ylabel="nats a token", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=120)


def _smooth(values: list[float], width: int = 20) -> list[float]:
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]
