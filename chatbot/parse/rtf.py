"""RTF, by striprtf: the text and its links' targets, rows of tables with bars between cells. Styles are left out, and
so headings are not known; pictures are left out."""

import re
from pathlib import Path

from striprtf.striprtf import rtf_to_text

from chatbot.passage import Document, Page

# Pictures and embedded files, as hexadecimal digits: striprtf would look at each of them
_HEX = (
    re.compile(  # four times 64 digits and more, however they are parted: from the head of a run to the end of the last
        r"(?<![0-9a-fA-F])(?:[0-9a-fA-F]{64}(?:[0-9a-fA-F]{0,63}+(?![0-9a-fA-F])\s*+)?+){4,}+"
    )
)


def read(path: Path, name: str) -> Document:
    rtf = _HEX.sub("", path.read_bytes().decode("cp1252", errors="replace"))
    text: str = rtf_to_text(rtf, errors="replace")
    return Document(name, "rtf", (Page(text),))
