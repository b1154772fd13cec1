"""The bench's figures as a picture: seconds to the first token, and tokens a second, by system and K."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatbot.errors import InputError, SetupError

COLOURS = {  # Okabe and Ito 2008: told apart by the colour-blind too
    "ours-warm": "#0072B2",
    "ours-cold": "#56B4E9",
    "stuffing": "#E69F00",
    "naive": "#CC79A7",
    "llama.cpp": "#009E73",
    "ours-seq2seq": "#000000",
    "hf-rag": "#D55E00",
}
RANDOM = ("ours-seq2seq", "hf-rag")  # other weights than the chat's: hatched
PANELS = (
    ("first_token_s", "seconds to the first token (shorter is better)"),
    ("tokens_per_s", "tokens a second (longer is better)"),
)


def check(path: Path) -> None:
    """Raises SetupError or InputError where `draw` would, so that nothing is measured in vain."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SetupError("--chart needs matplotlib, which is not installed: pip install matplotlib")
    if path.suffix.lower() != ".png":
        raise InputError(f"--chart writes PNG files, not {path.name!r}: give a name that ends in .png")
    if not path.absolute().parent.is_dir():
        raise InputError(f"the folder of --chart {str(path)!r} does not exist: make it first")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """`found`: what `bench` returns."""
    from matplotlib.figure import Figure

    rows: Sequence[Mapping[str, Any]] = found["rows"]
    names = [name for name in COLOURS if any(row["system"] == name for row in rows)]
    ks = sorted({row["k"] for row in rows})
    height = 1.9 + 0.22 * len(ks) * (len(names) + 1)
    figure = Figure(figsize=(11, height), layout="constrained")
    for axes, (field, label) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        for place, name in enumerate(names):
            own = [row for row in rows if row["system"] == name]
            bars = axes.barh(
                [ks.index(row["k"]) * (len(names) + 1) + place for row in own],
                [row[field] for row in own],
                height=0.85,
                color=COLOURS[name],
                edgecolor="white",
                hatch="//" if name in RANDOM else None,
                label=name,
            )
            axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        middles = [index * (len(names) + 1) + (len(names) - 1) / 2 for index in range(len(ks))]
        axes.set_yticks(middles, [f"K = {k}" for k in ks])
        axes.tick_params(left=False)
        axes.margins(x=0.12)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()  # of both
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    figure.supxlabel(_caption(found["settings"], names), fontsize=9, color="#444444")
    figure.savefig(path, dpi=150)


def _caption(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    model = Path(settings["generator"]).name
    text = f"{model}; passages of {settings['passage_tokens']} tokens, medians of {settings['rounds']}"
    return text + (f"; hatched: random weights, {settings['random_weights']}" if set(names) & set(RANDOM) else "")
