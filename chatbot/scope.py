"""What a search may find: the documents of some collections, kinds, languages and days."""

from dataclasses import dataclass
from datetime import datetime

DEFAULT = "default"  # the collection of a document for which none was named


@dataclass(frozen=True, slots=True)
class Scope:
    """A document is in it that fulfils every field; an empty field asks for nothing."""

    collections: tuple[str, ...] = ()  # names
    documents: tuple[str, ...] = ()  # ids
    kinds: tuple[str, ...] = ()  # "pdf", "docx"
    languages: tuple[str, ...] = ()  # ISO 639-1
    added_after: datetime | None = None  # aware, to the second; this moment is in it
    added_before: datetime | None = None  # aware, to the second; this moment is not


EVERYTHING = Scope()
