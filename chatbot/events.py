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
    """One token of the reply. The tuples of numbers are (K + 1,), "no passage" last.

    A passage that was not read has 0, 0, -inf and 1: one of too small a prior, or whose words an earlier one has. What
    a branch that reads several has is given back to them by their prior: see `branches`.
    """

    text: str  # "" inside a character that spans tokens
    prior: tuple[float, ...]  # the weights the passages voted with
    posterior: tuple[float, ...]  # p(z | x, y_<=i); sums to 1
    log_likelihoods: tuple[float, ...]  # log p(y_i | x, z, y_<i), in nats
    dropped: float = 0.0  # the prior's mass on branches not read: bounds the error, see `rag_token.prune`
    refusing: tuple[float, ...] = ()  # p(refusal | x, z), of a generator trained to; the same in every token
    cut: tuple[str, ...] = ()  # what did not fit into the window: "conversation", "passage"


@dataclass(frozen=True, slots=True)
class Answered:
    turn: Turn  # its reply's text replaces what was streamed: they differ where the reply abstains


Event = Rewritten | Retrieved | Token | Answered
