"""Text in pictures, by optical character recognition: image files, and pages of a PDF that are scans.

RapidOCR's models, for Chinese and English, lie in its wheel: nothing is fetched. It is an extra.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from chatbot.errors import UnreadableDocument
from chatbot.parse import INSTALL_OCR, has_ocr, pdf
from chatbot.passage import Document, Page

LONGEST_SIDE = 2_200  # pixels of what is read: 190 dots an inch of A4; at 1,600 it does not see many spaces
MOST_PIXELS = 100_000_000  # 300 MB unpacked
MOST_FRAMES = 10  # of a TIFF: what can be read in a minute


def read(path: Path, name: str) -> Document:
    if not has_ocr():
        raise UnreadableDocument(f"{name!r} is an image: to have its text read, {INSTALL_OCR}")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableDocument(
                    f"{name!r} has {image.width:,} x {image.height:,} pixels, more than the "
                    f"{MOST_PIXELS:,} that are read: save a smaller copy"
                )
            engine, frames = _engine(), getattr(image, "n_frames", 1)
            texts = [_text(engine, _pixels(frame)) for frame in islice(ImageSequence.Iterator(image), MOST_FRAMES)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableDocument(f"{name!r} is an image that is damaged: save or download it again") from error
    notice = f"{MOST_FRAMES} of {frames} pages were read" if frames > MOST_FRAMES else ""
    return Document(name, "image", tuple(Page(text, number) for number, text in enumerate(texts, 1)), notice)


def pages(path: Path, name: str, numbers: list[int]) -> Iterator[str]:
    """The text of each of a PDF's pages, which count from 1."""
    engine = _engine()
    with pdf.opened(path, name) as document:
        for number in numbers:
            page = document[number - 1]
            if any(True for _ in page.get_objects(max_depth=3)):
                scale = LONGEST_SIDE / max(1.0, *page.get_size())
                yield _text(engine, page.render(scale=scale, grayscale=False).to_numpy())
            else:
                yield ""
            page.close()


def _engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR  # takes 1 s

    # More threads take address space, which is limited, and the other core is the chat's. Telling whether a line
    # is upside down turns some round that are not: word F1 .905 with it, .940 without, on a page of small print.
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, max_side_len=LONGEST_SIDE, use_cls=False)


def _pixels(image: Image.Image) -> "np.ndarray[Any, Any]":
    """(H, W, 3) in blue, green, red; upright, and on white where it is transparent."""
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    page = Image.new("RGBA", upright.size, "white")
    page.alpha_composite(upright)
    return np.ascontiguousarray(np.asarray(page.convert("RGB"))[:, :, ::-1])


def _text(engine: Any, pixels: "np.ndarray[Any, Any]") -> str:
    """Words that stand beside each other are one line; lines from the top."""
    found, _ = engine(pixels)
    lines: list[list[tuple[float, float, float, str]]] = []  # (left, top, bottom, words)
    for corners, words, _ in found or ():
        left, top, bottom = corners[0][0], corners[0][1], corners[2][1]
        if lines and (top + bottom) / 2 < lines[-1][0][2]:
            lines[-1].append((left, top, bottom, words))
        else:
            lines.append([(left, top, bottom, words)])
    return "\n".join(" ".join(words for *_, words in sorted(line)) for line in lines)
