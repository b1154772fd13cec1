"""Imports point one way, as docs/architecture.md says. A new module or library must be placed in a table."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# layer: (its modules, the layers that they may import)
LAYERS: dict[str, tuple[str, str]] = {
    "values": ("errors passage scope conversation events progress", "values"),
    "settings": ("settings", "values"),
    "loading": ("loading", "values"),
    "schema": ("schema", "values"),
    "equations": (
        "rag_token likelihood attribution attributions answers branches fusion language prompt rewrites",
        "values rows equations",
    ),
    "rows": ("rows", "values rows"),
    "protocols": (
        "embedders embedders.base generators generators.base generators.engine index index.base",
        "values equations protocols",
    ),
    "stores": ("catalogue history", "values schema equations protocols"),
    "judged": ("judged", "values rows stores"),
    "embedders": (
        "embedders.compiled embedders.cross embedders.dpr embedders.hashing embedders.process embedders.sentence"
        " embedders.weights",
        "values loading equations protocols embedders",
    ),
    "generators": (
        "generators.adapter generators.causal generators.disk_cache generators.lean generators.openvino"
        " generators.packed generators.passage_cache generators.reference generators.scripted generators.seq2seq",
        "values loading equations protocols generators",
    ),
    "indexes": ("index.chroma index.lexical", "values equations protocols stores indexes"),
    "parsers": (
        "confined split parse parse.archive parse.book parse.code parse.formats parse.lines parse.mail"
        " parse.opendocument parse.outlook parse.pdf parse.plain parse.rows parse.rtf parse.sheets parse.slides"
        " parse.structured parse.web parse.word parse.worker parse.xml fetch parse.ocr parse.tables parse.unpack",
        "values parsers",
    ),
    "splitting": ("splitter", "values equations parsers"),  # tells the language, too
    "models": ("models", "values"),
    "training": (
        "train train.commands train.curve train.documents train.encoder train.examples train.generator train.loop"
        " train.model train.retriever train.trainable",
        "values settings loading rows judged equations protocols stores embedders generators models steps assembly"
        " training",
    ),
    "steps": (
        "rewrite retrieve generate sampling beam knowledge stores upkeep ingestion",
        "values schema equations protocols stores parsers splitting steps",
    ),
    "dialogue": ("dialogue", "values equations protocols steps"),
    "assembly": (
        "assemble",
        "values settings loading rows equations protocols stores embedders generators indexes parsers models steps"
        " dialogue assembly",
    ),
    "commands": (
        "cli cli.arguments cli.chat cli.documents cli.measure cli.terminal cli.training doctor evaluate",
        "values settings loading rows judged equations protocols stores models steps dialogue assembly bulk bench"
        " training commands ui",
    ),
    "bench": (
        "bench bench.chart bench.children bench.ingest bench.memory bench.rag bench.systems",
        "values settings equations protocols generators models steps assembly bench",
    ),
    "bulk": ("bulk", "values settings protocols stores indexes steps assembly"),
    "package": ("", "values assembly"),  # chatbot/__init__.py: what others may use
    "ui": (
        "ui ui.app ui.assets ui.chat ui.chooser ui.documents ui.endpoint ui.front ui.guard ui.i18n ui.keys ui.line"
        " ui.panel ui.place ui.plain ui.render ui.replies ui.run ui.scope ui.searched ui.server ui.site ui.thread"
        " ui.toast",
        "package ui",
    ),
}

# library: the modules that may import it
OWNERS: dict[str, str] = {
    "charset_normalizer": "chatbot.parse.plain",
    "chromadb": "chatbot.index.chroma",
    "docx": "chatbot.parse.word",
    "fastapi": "ui.site",
    "filelock": "chatbot.assemble chatbot.generators.disk_cache",
    "gradio": "ui.app ui.assets ui.chat ui.chooser ui.documents ui.endpoint ui.guard ui.site ui.toast",
    "huggingface_hub": "chatbot.embedders.weights chatbot.loading",
    "httpx": "chatbot.fetch chatbot.index.chroma chatbot.loading",
    "jinja2": "chatbot.generators.causal",
    "langdetect": "chatbot.language",
    "llama_cpp": "chatbot.bench.systems",
    "accelerate": "chatbot.train.loop",
    "lxml": "chatbot.parse.xml",
    "matplotlib": "chatbot.bench.chart chatbot.train.curve",
    "numpy": "chatbot.embedders.base chatbot.embedders.dpr chatbot.embedders.hashing"
    " chatbot.embedders.sentence chatbot.index.chroma chatbot.parse.ocr",
    "openpyxl": "chatbot.parse.sheets",
    "openvino": "chatbot.generators.openvino",
    "oxmsg": "chatbot.parse.outlook",
    "peft": "chatbot.embedders.sentence chatbot.generators.adapter chatbot.train.encoder chatbot.train.model"
    " chatbot.train.trainable",
    "pdfplumber": "chatbot.parse.tables",
    "PIL": "chatbot.parse.ocr",
    "platformdirs": "chatbot.settings",
    "pptx": "chatbot.parse.slides",
    "pypdfium2": "chatbot.parse.pdf",
    "rapidocr_onnxruntime": "chatbot.parse.ocr",
    "selectolax": "chatbot.parse.web",
    "ray": "chatbot.bulk",
    "safetensors": "chatbot.loading chatbot.generators.disk_cache chatbot.train.loop",
    "semantic_text_splitter": "chatbot.split",
    "sentence_transformers": "chatbot.embedders.cross chatbot.embedders.sentence chatbot.train.encoder",
    "snowballstemmer": "chatbot.language",
    "starlette": "ui.front ui.guard ui.site",
    "striprtf": "chatbot.parse.rtf",
    "tokenizers": "chatbot.bench.rag chatbot.embedders.dpr chatbot.embedders.hashing chatbot.embedders.sentence"
    " chatbot.generators.causal chatbot.generators.seq2seq chatbot.split chatbot.splitter",
    "torch": "chatbot.assemble chatbot.attribution chatbot.bench chatbot.bench.rag chatbot.bench.systems"
    " chatbot.embedders.compiled chatbot.embedders.dpr chatbot.embedders.sentence chatbot.generate"
    " chatbot.generators.causal"
    " chatbot.generators.disk_cache chatbot.generators.lean chatbot.generators.openvino chatbot.generators.packed"
    " chatbot.generators.passage_cache chatbot.generators.reference chatbot.generators.scripted"
    " chatbot.generators.seq2seq chatbot.likelihood chatbot.rag_token chatbot.retrieve chatbot.sampling"
    " chatbot.train.commands chatbot.train.encoder chatbot.train.examples chatbot.train.generator chatbot.train.loop"
    " chatbot.train.model chatbot.train.retriever chatbot.train.trainable",
    "tqdm": "chatbot.cli.terminal",
    "trafilatura": "chatbot.parse.web",
    "transformers": "chatbot.bench.rag chatbot.bench.systems chatbot.embedders.compiled chatbot.embedders.dpr"
    " chatbot.embedders.sentence chatbot.generators.adapter chatbot.generators.causal chatbot.generators.lean"
    " chatbot.generators.openvino chatbot.generators.reference chatbot.generators.seq2seq chatbot.train.model"
    " chatbot.train.trainable chatbot.models",
    "uvicorn": "ui.server",
}

HEAVY = ("torch", "chromadb", "gradio", "transformers", "sentence_transformers", "trafilatura", "openvino")


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str  # "chatbot.index.base", "torch"
    typing_only: bool  # under `if TYPE_CHECKING:`


def test_every_module_has_its_layer_and_every_layer_only_modules_that_exist():
    placed = [module for layer in LAYERS for module in modules_of(layer)]
    assert sorted(placed) == sorted(modules())


def test_imports_point_one_way():
    wrong = [
        f"{each.importer} ({layer_of(each.importer)}) imports {each.imported} ({layer_of(each.imported)})"
        for each in imports()
        if each.imported in modules() and layer_of(each.imported) not in allowed(layer_of(each.importer))
    ]
    assert not wrong


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {i.imported for i in imports() if i.importer == module} & set(modules()) for module in modules()}
    while leaves := [module for module, imported in graph.items() if not imported]:
        graph = {module: imported - set(leaves) for module, imported in graph.items() if module not in leaves}
    assert not graph, f"a cycle runs through some of {sorted(graph)}"


def test_a_library_is_imported_only_by_the_module_that_owns_it():
    wrong = [
        f"{each.importer} imports {each.imported}"
        for each in imports()
        if not each.typing_only
        and (library := each.imported.partition(".")[0]) not in ("chatbot", "ui", *sys.stdlib_module_names)
        and each.importer not in OWNERS.get(library, "").split()
    ]
    assert not wrong


def test_the_table_of_owners_names_only_imports_that_exist():
    real = {(each.imported.partition(".")[0], each.importer) for each in imports()}
    assert [
        (library, owner)
        for library, owners in OWNERS.items()
        for owner in owners.split()
        if (library, owner) not in real
    ] == []


IMPORTED = "import chatbot"
HELP = """
import runpy
sys.argv = ["run.py", "--help"]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("program", [IMPORTED, HELP], ids=["import chatbot", "run.py --help"])
def test_starting_up_loads_no_heavy_library(program: str):
    program = f"import sys\n{program}\nprint('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "loaded:"


@cache
def modules() -> tuple[str, ...]:
    """Every module's dotted name; a package's is that of its folder."""
    paths = sorted([*ROOT.glob("chatbot/**/*.py"), *ROOT.glob("ui/**/*.py")])
    return tuple(name_of(path) for path in paths)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(layer: str) -> list[str]:
    names = LAYERS[layer][0].split()
    if layer == "package":
        return ["chatbot"]
    return names if layer == "ui" else [f"chatbot.{name}" for name in names]


def layer_of(module: str) -> str:
    return next((layer for layer in LAYERS if module in modules_of(layer)), "no layer")


def allowed(layer: str) -> list[str]:
    return LAYERS[layer][1].split() if layer in LAYERS else []


@cache
def imports() -> tuple[Import, ...]:
    return tuple(each for module in modules() for each in imports_of(module))


def imports_of(module: str) -> Iterator[Import]:
    path = ROOT / module.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        for name in names_imported(node):
            yield Import(module, name, id(node) in typing_only)


def names_imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports: for `from chatbot import assemble` that is chatbot.assemble."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.module and not node.level, f"write {ast.unparse(node)!r} with the whole name"
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    return sorted({name if name in modules() else node.module for name in names})
