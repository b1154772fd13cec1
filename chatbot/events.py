"""What happens in one turn, in this order: Rewritten, Retrieved, Token (many), Answered."""

from dataclasses import dataclass

from chatbot.conversation import Query, Turn
from chatbot.passage import Hit


@dataclass(frozen=True, slots=True)
class Rewritten:
    query: Query


@dataclass(frozen=True, slots=True)
class Retrieved:
    hits: tuple[Hit, ...]  # K, best first
    prior: tuple[float, ...]  # (K + 1,): p(z | x), "no passage" last; sums to 1


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the reply. Every tuple is (K + 1,), "no passage" last."""

    text: str  # "" inside a character that spans tokens
    prior: tuple[float, ...]  # the weights the branches voted with
    posterior: tuple[float, ...]  # p(z | x, y_<=i); sums to 1
    log_likelihoods: tuple[float, ...]  # log p(y_i | x, z, y_<i), in nats


@dataclass(frozen=True, slots=True)
class Answered:
    turn: Turn  # its reply's text replaces what was streamed: they differ where the reply abstains


Event = Rewritten | Retrieved | Token | Answered
