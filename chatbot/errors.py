"""Errors, by who can put them right. Each message says what is wrong, with which value, and what to do.

Whatever is not a `MarginaliaError` is a bug of ours.
"""


class MarginaliaError(Exception):
    """Any error that a person can do something about."""


class InputError(MarginaliaError):
    """What was typed or uploaded cannot be used: the person changes it."""


class UnusableUtterance(InputError):
    """The question is empty or too long."""


class UnreadableDocument(InputError):
    """A file gives no text: empty, encrypted, truncated, too large, or of a type that is not read."""


class PackedFiles(UnreadableDocument):
    """A zip of files, which is no document itself: `chatbot.parse.unpack` takes them out."""


class UnknownDocument(InputError):
    """No document has this id."""


class UnknownCollection(InputError):
    """No collection has this name."""


class NameTaken(InputError):
    """Another document of this name, with other content, is there already; or another collection."""


class UnreadableData(InputError):
    """A file given to a command (conversation, corpus, queries, judgements) is not as it should be."""


class SetupError(MarginaliaError):
    """The installation or its settings must change."""


class WrongSetting(SetupError):
    """A setting is unknown or has a value that cannot be used."""


class MissingModel(SetupError):
    """Weights are not where the settings say, or cannot be fetched."""


class BrokenModel(SetupError):
    """The generator gives no probabilities: its weights are damaged, or overflow in their number format."""


class TrainingFailed(MarginaliaError):
    """A training cannot go on; what it saved before stays usable."""


class HomeInUse(SetupError):
    """Another process owns the home folder."""


class HomeDamaged(SetupError):
    """The home folder's files cannot be read, or were written by another version or embedder."""


class StoreUnreachable(SetupError):
    """The Chroma server named in the settings does not answer."""
