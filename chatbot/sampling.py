"""The mixture -> one token, and the tokens up to a stop string or a loop.

Temperature, top-p, min-p and repetition penalty act on the mixture's log-probabilities, not on any branch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chatbot.events import Token


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply's tokens are chosen, and where it ends besides the generator's end tokens."""

    max_tokens: int = 200
    temperature: float = 0.0  # 0: the likeliest token
    repetition_penalty: float = 1.0  # Keskar et al. 2019, on log-probabilities: 1 is none
    seed: int = 0
    top_p: float = 1.0  # Holtzman et al. 2020: 1 is all
    min_p: float = 0.0  # Nguyen et al. 2024: 0 is all
    stop: tuple[str, ...] = ()  # the reply ends before any of these
    most_repeats: int = 0  # the reply ends where it has said the same piece so often in a row; 0: never, 1: as 2


GREEDY = Sampling()
_PIECE = 100  # characters: longer ones are not looked for
_LOOP = 40  # characters of repeats: "no, no, no, no" is none yet


def choose(mixture: Tensor, chosen: Sequence[int], sampling: Sampling, random: torch.Generator) -> int:
    """The next token from (V,) log-probabilities of the mixture. `chosen`: the reply's tokens so far."""
    if chosen and sampling.repetition_penalty != 1:
        mixture = mixture.clone()
        mixture[list(set(chosen))] *= sampling.repetition_penalty  # they are negative: more so is less likely
    if sampling.temperature == 0:
        return int(mixture.argmax())
    probs = torch.softmax(mixture / sampling.temperature, dim=-1)
    mass = truncate(probs, sampling.top_p, sampling.min_p).double().cumsum(0)
    drawn = torch.rand(1, generator=random, dtype=torch.float64) * mass[-1]
    return min(int(torch.searchsorted(mass, drawn, right=True)), len(mass) - 1)  # quicker than torch.multinomial


def truncate(probs: Tensor, top_p: float, min_p: float) -> Tensor:
    """The probabilities with 0 for unlikely tokens, not renormalised: (V,) -> (V,).

    `top_p` keeps the fewest likeliest tokens whose mass reaches it, at least one; `min_p` keeps those that are at
    least so many times as likely as the likeliest.
    """
    least = min_p * float(probs.max())
    if top_p >= 1:
        return torch.where(probs >= least, probs, 0)
    least = max(least, (1 - top_p) / len(probs))  # what is less likely makes up less than 1 - top_p together
    candidates = (probs >= least).nonzero().flatten()
    ordered, order = probs[candidates].double().sort(descending=True)
    needed = max(1, int((ordered.cumsum(0) - ordered < top_p).sum()))
    nucleus = candidates[order[:needed]]
    return torch.zeros_like(probs).index_copy(0, nucleus, probs[nucleus])


def ended(tokens: Iterable[Token], sampling: Sampling) -> Iterator[Token]:
    """The tokens up to a loop, and before a stop string."""
    return until(unlooped(tokens, sampling.most_repeats), sampling.stop)


def until(tokens: Iterable[Token], stops: Sequence[str]) -> Iterator[Token]:
    """The tokens before the first stop string to be completed. A stop string may begin and end inside tokens.

    A token whose text may hold the beginning of a stop string is held back until that is known.
    """
    stops = [stop for stop in stops if stop]
    held: list[Token] = []
    for token in tokens:
        held.append(token)
        text = "".join(each.text for each in held)
        if (start := stop_start(text, stops)) is not None:
            yield from shortened(held, start)
            return
        safe = len(text) - beginning_at_end(text, stops)
        while held and len(held[0].text) <= safe:
            safe -= len(held[0].text)
            yield held.pop(0)
    yield from held


def unlooped(tokens: Iterable[Token], most: int) -> Iterator[Token]:
    """The tokens up to the one that completes a loop. See `loops`."""
    text = ""
    for token in tokens:
        yield token
        text = (text + token.text)[-_PIECE * max(2, most) :]
        if loops(text, most):
            return


def loops(text: str, most: int) -> bool:
    """Whether the text ends with one piece, with a letter or digit in it, said `most` times in a row. 0: never.

    What is said once repeats nothing: at least two times it is, also for 1.
    """
    for length in range(1, _PIECE + 1) if most else ():
        times = max(2, most, -(-_LOOP // length))
        if length * times > len(text):
            continue
        piece = text[-length:]
        if text.endswith(piece * times) and any(map(str.isalnum, piece)):
            return True
    return False


def stop_start(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string begins that ends first in the text, the longer of two that end together."""
    found = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def beginning_at_end(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of the text that a stop string begins with."""
    lengths = (length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length]))
    return max(lengths, default=0)


def shortened(tokens: Iterable[Token], length: int) -> Iterator[Token]:
    """The tokens that spell the first `length` characters, the last one's text cut."""
    for token in tokens:
        if length <= 0:
            return
        yield replace(token, text=token.text[:length])
        length -= len(token.text)
