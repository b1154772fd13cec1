"""Everything that can be chosen, in one frozen value.

Later sources win: the defaults, a TOML file (`<home>/settings.toml`, or `--settings FILE`), the environment
(`MARGINALIA_K=8`), then `--set k=8` or keyword arguments of `open_chatbot`. What is not chosen and depends on the model
is `auto`, never a number: a number that is given is always used.
"""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from chatbot.errors import WrongSetting

Auto = typing.Literal["auto"]
AUTO: Auto = "auto"


def _setting(default: object, help: str, **bounds: object) -> typing.Any:
    return field(default=default, metadata={"help": help, **bounds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    home: Path = _setting(  # noqa: RUF009
        Path(platformdirs.user_data_dir("marginalia", appauthor=False)),
        "Folder that holds all state: documents, indexes, conversations, weights.",
    )
    generator: str = _setting(
        "smollm2-135m-instruct",
        "The default's name, a folder with a transformers model, causal or encoder-decoder, or a hub id.",
    )
    adapter: str = _setting(
        "auto",
        "A folder with LoRA matrices for the generator, from `train generator`; `none`; `auto`: the default's own.",
    )
    embedder: str = _setting(
        "all-minilm-l6-v2",
        "The default's name, a folder with a sentence-transformers model, a hub id, or `dpr:QUESTION,CONTEXT`.",
    )
    passage_tokens: int = _setting(
        160, "Longest passage, in the embedder's tokens, never more than it reads.", low=16, high=100_000
    )
    passage_overlap: int = _setting(
        0, "Tokens that neighbouring passages may share, at most half of a passage.", low=0, high=50_000
    )
    chroma: str = _setting("", "Address of a Chroma server (`http://host:port`); empty: a store of our own under home.")
    retriever: str = _setting("hybrid", "What ranks passages.", choices=("hybrid", "dense", "lexical"))
    lexical: str = _setting(
        "bm25", "How the lexical index ranks; `tfidf` is for comparisons.", choices=("bm25", "tfidf")
    )
    lexical_weight: float = _setting(
        1.0,
        "Weight of the lexical ranking, with `hybrid`: the dense one has 1. After a first turn .7 of it with `ranks`.",
        low=0,
        high=100,
    )
    fusion: str = _setting(
        "scores",
        "Joins the rankings by their `scores`, each over its standard deviation, or by `ranks` (RRF, k = 60).",
        choices=("scores", "ranks"),
    )
    query_encoder: str = _setting(
        "auto",
        "A folder from `train retriever --rank`, to read a turn with its conversation; `none`; `auto`: the default's.",
    )
    reranker: str = _setting("", "A cross-encoder's folder or hub id, for a second look at the best; empty: none.")
    k: int = _setting(5, "Passages a reply is generated from.", low=1, high=50)
    reading: str = _setting(
        "apart",
        "Each passage alone; `apart+pair`: the two likeliest also together; `stuffing`: all in one prompt, a baseline.",
        choices=("apart", "apart+pair", "stuffing"),
    )
    pair_prior: float = _setting(
        0.5, "Share of the prior of either that reading the two together gets, with `apart+pair`.", low=0, high=1
    )
    temperature_of_prior: float | Auto = _setting(  # noqa: RUF009
        AUTO,
        "Temperature of p(z | x): lower trusts the ranking more. `auto`: 0.05 over cosines, 1 over inner products.",
        kind=float,
        low=0.001,
        high=10,
    )
    no_passage: float | Auto = _setting(  # noqa: RUF009
        AUTO,
        "Similarity at which a passage weighs as much as having none. `auto`: a cosine of 0.25, no inner product.",
        kind=float,
        low=-1,
        high=1,
    )
    question_weight: float | Auto = _setting(  # noqa: RUF009
        AUTO,
        "How much the question's likelihood under a passage counts in the prior. `auto`: the generator's (2), or 0.",
        kind=float,
        low=0,
        high=10,
    )
    rewriter: str = _setting(
        "terms",
        "Of a turn that leans on the conversation: `none`, its `terms`, `generator`, `trained` (the default generator, "
        "taught to rewrite), a folder from `train rewriter`.",
    )
    max_reply_tokens: int = _setting(200, "Longest reply.", low=1, high=4096)
    temperature: float = _setting(0.0, "Temperature of the mixture; 0 takes the likeliest token.", low=0, high=5)
    top_p: float = _setting(
        1.0, "Samples from the fewest likeliest tokens whose mass reaches this; 1 is all.", low=0, high=1
    )
    min_p: float = _setting(
        0.0, "Samples from tokens at least so many times as likely as the likeliest; 0 is all.", low=0, high=1
    )
    repetition_penalty: float = _setting(
        1.0, "Makes tokens that the reply holds already less likely; 1 does nothing.", low=1, high=10
    )
    most_repeats: int = _setting(
        3,
        "Ends a reply that has said the same thing so many times in a row, at least twice; 0: never.",
        low=0,
        high=100,
    )
    beams: int = _setting(
        1,
        "Width of beam search, for the likeliest reply as a whole; it is not streamed. 1: token by token.",
        low=1,
        high=20,
    )
    stop: tuple[str, ...] = _setting((), 'The reply ends before any of these: one, or a TOML list, `["one", "two"]`.')
    epsilon: float | Auto = _setting(  # noqa: RUF009
        AUTO,
        "Chance that a passage is drawn anew: 1 RAG-Token, 0 RAG-Sequence. `auto`: the generator's own (0.2), or 1.",
        kind=float,
        low=0,
        high=1,
    )
    least_prior: float = _setting(
        0.01, "A passage with less of the prior is not read; `no passage` always is.", low=0, high=0.5
    )
    contrast: float = _setting(
        0.0, "Takes off what would be said without a passage, so many times over; 0 does nothing.", low=0, high=10
    )
    entropy_weight: float = _setting(
        0.0, "Takes votes from branches that are unsure of the next token; 0 does nothing.", low=0, high=10
    )
    least_confidence: float | Auto = _setting(  # noqa: RUF009
        AUTO,
        "A reply of lower confidence is withheld. `auto`: the generator's own (0.15), or 0.25.",
        kind=float,
        low=0,
        high=1,
    )
    seed: int = _setting(0, "Seed of sampling.", low=0, high=2**63 - 1)
    threads: int = _setting(
        0, "Processor threads for the models, never more than cores; 0: one for each core.", low=0, high=1024
    )
    engine: str = _setting(
        "auto",
        "What runs the generator: `openvino`, `lean`: int8 on a CPU, for Llama and Qwen kinds; `auto`: the fastest.",
        choices=("auto", "openvino", "lean", "lean-float32", "transformers"),
    )
    passage_cache_mb: int = _setting(
        512, "Memory for passages that the generator has read, in megabytes; 0: read them again.", low=0, high=1_000_000
    )
    passage_cache_disk_mb: int = _setting(
        0, "Disk space under home for the same, so that a restart keeps it; 0: none.", low=0, high=1_000_000
    )
    max_utterance: int = _setting(4000, "Longest question, in characters.", low=1, high=1_000_000)
    max_file_mb: int = _setting(100, "Largest file that is read, in megabytes.", low=1, high=10_000)
    private_addresses: bool = _setting(
        False, "Fetch web addresses on this machine and on private networks too; they are refused otherwise."
    )
    sample: bool = _setting(True, "Load the sample documents into an empty knowledge base at the first start.")


FIELDS: Mapping[str, dataclasses.Field[object]] = {f.name: f for f in dataclasses.fields(Settings)}


def load(
    home: str | Path | None = None,
    file: str | Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Raises WrongSetting for an unknown name, a value of the wrong type, or a file that cannot be read."""
    environment = os.environ if environment is None else environment
    given: dict[str, object] = {
        name: environment[key] for name in FIELDS if (key := f"MARGINALIA_{name.upper()}") in environment
    }
    given |= overrides or {}
    if home is not None:
        given["home"] = home
    folder = _value("home", given.get("home", FIELDS["home"].default))
    path = Path(file) if file is not None else folder / "settings.toml"
    from_file = _read(path) if file is not None or path.exists() else {}
    values = {name: _value(name, value) for name, value in (from_file | given).items()}
    chosen = Settings(**values)
    if chosen.beams > 1 and (chosen.temperature or chosen.repetition_penalty != 1):
        raise WrongSetting(
            f"beams is {chosen.beams}, which neither samples nor penalises: set temperature=0 and repetition_penalty=1"
        )
    return chosen


def parse_assignment(text: str) -> tuple[str, str]:
    """`"k=8"` -> `("k", "8")`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise WrongSetting(f"--set {text!r} has no '=': write it as --set name=value")
    return name.strip(), value.strip()


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise WrongSetting(f"settings file {str(path)!r} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise WrongSetting(f"settings file {str(path)!r} is nested too deeply: write name = value") from error
    except ValueError as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise WrongSetting(f"settings file {str(path)!r} is not TOML: {error}") from error


def _value(name: str, given: object) -> typing.Any:
    if name not in FIELDS:
        raise WrongSetting(f"there is no setting {_shown(name)}: choose from {', '.join(FIELDS)}")
    if given is None:
        raise WrongSetting(f"{name} is None: leave it out for its default, or give it a value")
    default, bounds = FIELDS[name].default, FIELDS[name].metadata
    if default == AUTO == given:
        return AUTO
    value = _convert(name, given, bounds.get("kind", type(default)))
    if "choices" in bounds and value not in bounds["choices"]:
        raise WrongSetting(f"{name} is {_shown(given)}: choose from {', '.join(bounds['choices'])}")
    if "low" in bounds and not bounds["low"] <= value <= bounds["high"]:
        raise WrongSetting(f"{name} is {_shown(given)}: it must lie between {bounds['low']} and {bounds['high']}")
    return value


def _convert(name: str, given: object, kind: type[object]) -> object:
    if kind is bool:
        return _truth(name, given)
    if kind is tuple:
        return _strings(name, given)
    if kind in (int, float):
        return _number(name, given, kind)
    if not isinstance(given, str | Path):
        raise WrongSetting(f"{name} is {_shown(given)}: write a string")
    return str(given) if kind is str else _path(name, given)


def _path(name: str, given: str | Path) -> Path:
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:  # `~name`, of a person who is not here
        raise WrongSetting(f"{name} is {_shown(str(given))}, which is nobody's folder: give another") from error
    if "\0" in str(path):
        raise WrongSetting(f"{name} is {_shown(str(given))}: no path holds a zero byte")
    return path


def _truth(name: str, given: object) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(given, str | int) and str(given).lower() in words:
        return words[str(given).lower()]
    raise WrongSetting(f"{name} is {_shown(given)}: write true or false")


def _number(name: str, given: object, kind: type[object]) -> int | float:
    try:
        number = int(str(given)) if kind is int else float(str(given))
    except (ValueError, RecursionError):
        wanted = f"a {'whole ' if kind is int else ''}number{', or auto' if FIELDS[name].default == AUTO else ''}"
        raise WrongSetting(f"{name} is {_shown(given)}: it must be {wanted}") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise WrongSetting(f"{name} is {_shown(given)}: it must be a finite number")
    return number


def _strings(name: str, given: object) -> tuple[str, ...]:
    """One string, or a list: TOML's own, or written as TOML writes it."""
    if isinstance(given, str) and given.startswith("["):
        try:
            given = tomllib.loads(f"list = {given}")["list"]
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else error
            raise WrongSetting(
                f'{name} is {_shown(given)}, which is no TOML list such as ["one", "two"]: {why}'
            ) from None
    strings = [given] if isinstance(given, str) else given
    if not isinstance(strings, list | tuple) or not all(isinstance(each, str) for each in strings):
        raise WrongSetting(f"{name} is {_shown(given)}: write a string or a list of strings")
    return tuple(each for each in strings if each)


def _shown(given: object) -> str:
    """As Python writes it, on one line of bounded length, however long or deep it is."""
    try:
        return _SHORT.repr(given)
    except ValueError:  # a number of thousands of digits
        return f"a {type(given).__name__} of too many digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
