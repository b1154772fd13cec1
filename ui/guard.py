"""What a page takes from a browser: requests of its own shape, and files that were handed in on it.

Any function of a page can be called by its index, and any value in a request may say `{"path": P, "meta": ...}`: gradio
then copies P to where it serves files, or fetches it where it is an address. It looks where P lies only if
`has_launched` is true, which `gr.mount_gradio_app` never sets, and it never minds an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException


def guard(page: gr.Blocks, functions: Iterable[BlockFunction]) -> None:
    """Has `page` check every path that it is sent, and refuse to `functions` all that was not handed in here.

    To be called for the `gr.Blocks` that is served; wherever these functions are rendered later is found as it starts.
    """
    ours = frozenset(map(id, functions))
    _check(page, ours)

    async def where_it_was_rendered() -> None:
        for other in gr.Blocks.get_instances():
            if other is not page and any(id(function) in ours for function in other.fns.values()):
                _check(other, ours)

    page.extra_startup_events.append(where_it_was_rendered)  # which rendering a page in another hands on to that


def _check(page: gr.Blocks, ours: frozenset[int]) -> None:
    page.has_launched = True
    page.default_config.fns = _Functions(page.default_config.fns)
    preprocess, call = page.preprocess_data, page.call_function

    async def checked(block_fn: BlockFunction, inputs: list[Any], *rest: Any, **more: Any) -> list[Any]:
        if id(block_fn) not in ours:
            return await preprocess(block_fn, inputs, *rest, **more)
        _make_whole(inputs)
        _refuse_other_files(inputs)
        try:
            values = await preprocess(block_fn, inputs, *rest, **more)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:  # whatever gradio's components raise for what they cannot read
            raise gr.Error("That is no request that this page makes.", print_exception=False) from error
        texts = [isinstance(block, gr.Textbox) for block in block_fn.inputs]
        return ["" if text and value is None else value for text, value in zip(texts, values, strict=True)]

    async def told(block_fn: BlockFunction, *rest: Any, **more: Any) -> dict[str, Any]:
        given = [each for each in (*rest, *more.values()) if isinstance(each, gr.EventData) and id(block_fn) in ours]
        for event in given:
            if isinstance(event._data, _Told):  # by the guard of another part of this page
                continue
            _make_whole(event._data)
            _refuse_other_files(event._data)
            event._data = _Told(event._data if isinstance(event._data, dict) else {})
        return await call(block_fn, *rest, **more)

    page.preprocess_data = checked  # type: ignore[method-assign]
    page.call_function = told  # type: ignore[method-assign, assignment]


class _Functions(dict[int, BlockFunction]):
    """gradio's functions by their number, of which anybody may name any."""

    def __missing__(self, number: int) -> BlockFunction:
        raise HTTPException(404, f"The page has no function {number}")


class _Told(dict[str, Any]):
    """What a browser says of an event: None is what it does not say."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and not name.startswith("_")

    def __missing__(self, name: str) -> None:
        return None


def handed_in(path: object) -> Path | None:
    """The file at `path`, wherever links and dots lead, if it lies in gradio's folder of uploads; else None."""
    if not isinstance(path, str):
        return None
    try:
        file = Path(path).resolve(strict=True)
        return file if file.is_file() and file.is_relative_to(Path(get_upload_folder()).resolve()) else None
    except (OSError, ValueError):  # an address, nothing at all, or a name that no file can have
        return None


def _refuse_other_files(value: object) -> None:
    if any(handed_in(path) is None for path in _paths(value)):
        raise gr.Error("That file was not handed in on this page: upload it.", print_exception=False)


def _make_whole(value: object) -> None:
    """Puts a mark in place of each half of a character in the texts of a request's value: no text can be stored or
    answered with one, and a browser may cut what was typed in the middle of a character."""
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if not isinstance(held, (dict, list)):
            continue
        for place, each in held.items() if isinstance(held, dict) else enumerate(held):
            if isinstance(each, str):
                held[place] = each.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            else:
                waiting.append(each)


def _paths(value: object) -> Iterator[object]:
    """What the files in a request's value call their path, however deep they lie."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as held:
                if "path" in held:
                    yield held["path"]
                waiting.extend(held.values())
            case list() as held:
                waiting.extend(held)
