"""Files as people have them, built here; each is read in the process that reads them in the product."""

import io
import re
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docx
import pytest
from docx.oxml.parser import parse_xml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from chatbot.errors import UnreadableDocument
from chatbot.parse import has_ocr, read
from chatbot.parse.formats import kind_of
from chatbot.parse.lines import clean
from chatbot.parse.pdf import headings, unwrap
from chatbot.passage import Document

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def pdf(*pages: str, encrypted: bool = False) -> bytes:
    """A PDF whose pages hold these lines in Helvetica."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, page in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(shown(*page.split("\n")))
    blob = "00" * 32
    secret = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{blob}> /U <{blob}> /P -4 >> /ID [<{blob}> <{blob}>]"
    return pdf_of(*objects, trailer=secret if encrypted else "")


def shown(*lines: str) -> str:
    """The content of a page that shows these lines."""
    text = "".join(f"({line}) Tj T* " for line in lines)
    return stream_of(f"BT /F1 12 Tf 14 TL 50 700 Td {text}ET")


def stream_of(content: str) -> str:
    return f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"


def pdf_of(*objects: str | bytes, trailer: str = "") -> bytes:
    """A PDF of these objects, of which the first is its catalogue."""
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content if isinstance(content, bytes) else content.encode())
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer << /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + end.encode()


def word(*paragraphs: str) -> bytes:
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    return saved(document)


def saved(document: "docx.document.Document") -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


OFFICE = {"[Content_Types].xml": b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'}


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


@pytest.fixture
def reading(tmp_path):
    """Content and name in, document out."""

    def read_bytes(content: bytes, name: str, **limits: float) -> Document:
        path = tmp_path / "upload"  # as uploads are kept: under a name that tells nothing
        path.write_bytes(content)
        return read(path, name, **({"max_bytes": 100_000_000} | limits))

    return read_bytes


@pytest.fixture
def refusal(reading):
    """Content and name in, the one line that says why it is not read out."""

    def line(content: bytes, name: str, **limits: float) -> str:
        with pytest.raises(UnreadableDocument) as caught:
            reading(content, name, **limits)
        message = str(caught.value)
        assert repr(name) in message and "\n" not in message and "Traceback" not in message
        assert ": " in message  # what is wrong: what to do
        return message

    return line


# PDF


def test_a_pdf_keeps_its_page_numbers(reading):
    document = reading(pdf("First page", "Second page"), "a.pdf")
    assert (document.kind, document.notice) == ("pdf", "")
    assert [(page.number, page.text.strip()) for page in document.pages] == [
        (1, "First page"),
        (2, "Second page"),
    ]


def test_blank_pages_of_a_pdf_are_reported(reading):
    document = reading(pdf("Words", "", "More"), "a.pdf")
    assert document.notice.startswith("1 of 3 pages had no text")
    assert [page.number for page in document.pages] == [1, 2, 3]


@pytest.mark.skipif(has_ocr(), reason="OCR is installed")
def test_without_ocr_pages_and_pictures_say_what_to_install(reading, refusal):
    assert "(if they are scans, pip install rapidocr-onnxruntime)" in reading(pdf("Words", ""), "a.pdf").notice
    assert "holds no text, only images: to have them read, pip install" in refusal(pdf("", ""), "scan.pdf")
    assert "is an image: to have its text read, pip install" in refusal(b"\x89PNG\r\n\x1a\n" + bytes(99), "a.png")


def test_an_encrypted_pdf_is_told_apart_from_a_broken_one(refusal):
    assert "is encrypted" in refusal(pdf("Secret", encrypted=True), "a.pdf")
    assert "is cut short or damaged" in refusal(b"%PDF-1.7\n" + bytes(range(256)) * 8, "a.pdf")
    assert "is cut short or damaged" in refusal(pdf("Words")[:120], "a.pdf")


def test_a_paragraph_that_a_pdf_prints_on_several_lines_is_one_line():
    assert unwrap(
        "Heading\r\n"
        "The first line of a paragraph that goes on\r\n"
        "in a second line, about as wide as it is,\r\n"
        "and ends.\r\n"
        "• An item that is as wide as the lines are\r\n"
        "• Another one"
    ) == (
        "Heading\n"
        "The first line of a paragraph that goes on in a second line, about as wide as it is, and ends.\n"
        "• An item that is as wide as the lines are\n"
        "• Another one"
    )


def test_lines_of_chinese_are_joined_without_a_space():
    first, second = "檢索增強生成模型結合了預訓練的參數記憶與非參數記憶", "可以回答問題。"
    assert unwrap(f"{first}\n{second}") == first + second


def test_a_word_hyphenated_at_a_line_end_is_mended():
    assert unwrap("The Ef\ufffe\r\nfect is large") == "The Effect is large"


PAGE_OF_A_PDF = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> /Contents"
OUTLINED = (
    "<< /Type /Catalog /Pages 2 0 R /Outlines 8 0 R >>",
    "<< /Type /Pages /Count 2 /Kids [4 0 R 6 0 R] >>",
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    f"{PAGE_OF_A_PDF} 5 0 R >>",
    shown("Contents of 1 Leave", "1 Leave", "Thirty days.", "Unused days", "They lapse."),
    f"{PAGE_OF_A_PDF} 7 0 R >>",
    shown("They do."),
    "<< /Type /Outlines /First 9 0 R /Last 11 0 R /Count 3 >>",
    "<< /Title (Leave) /Parent 8 0 R /Dest [4 0 R /Fit] /First 10 0 R /Last 10 0 R /Count 1 /Next 11 0 R >>",
    "<< /Title (Unused  days) /Parent 9 0 R /Dest [4 0 R /Fit] >>",
    "<< /Title (Not on the page) /Parent 8 0 R /Dest [6 0 R /Fit] /Next 9 0 R >>",  # a loop
)


def test_the_outline_of_a_pdf_gives_the_headings_of_its_passages(reading):
    pages = reading(pdf_of(*OUTLINED), "a.pdf").pages
    assert [(h.level, h.title, pages[0].text[h.start : h.end]) for h in pages[0].headings] == [
        (1, "Leave", "1 Leave"),
        (2, "Unused days", "Unused days"),
    ]
    assert pages[0].text[: pages[0].headings[0].start].strip() == "Contents of 1 Leave"
    assert [(h.title, h.start, h.end) for h in pages[1].headings] == [("Not on the page", 0, 0)]


def test_ten_thousand_titles_that_begin_alike_take_no_longer_than_as_many_others(reading):
    lines = 3_000
    content = pdf_of(
        "<< /Type /Catalog /Pages 2 0 R /Outlines 6 0 R >>",
        "<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"{PAGE_OF_A_PDF} 5 0 R >>",
        shown(*(f"Leave here {n}" for n in range(lines))),
        "<< /Type /Outlines /First 7 0 R /Last 10006 0 R /Count 10000 >>",
        *(f"<< /Title (Leave there {n}) /Parent 6 0 R /Dest [4 0 R /Fit] /Next {n + 8} 0 R >>" for n in range(10_000)),
    )
    started = time.monotonic()
    (page,) = reading(content, "a.pdf").pages
    assert page.text.count("Leave here") == lines and len(page.headings) == 10_000
    assert time.monotonic() - started < 20  # 1 s; it was 60 and more, and refused


SPACES, WORDS_OF_TITLES = (
    st.sampled_from([" ", "  ", "\n", "\n\n", " \t", "", ":", "\n# ", "\n1. "]),
    st.sampled_from(["Leave", "leave", "Lea", "a", "b", "1", "1.2", "II", "#", "-", "(x)", "ΟΔΟΣ", "年假", "a-b"]),
)


def stands(text: str, place: int, title: str) -> tuple[int, bool]:
    """Where the title that stands there ends, and whether the line does too; 0 where it does not stand there."""
    pattern = r"\s+".join(map(re.escape, title.split())) + r"(?:([^\w\n]*)(?=\n|\Z)|\b)"
    found = re.compile(pattern, re.IGNORECASE).match(text, place)
    return (found.end(), found[1] is not None) if found else (0, False)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(WORDS_OF_TITLES, SPACES).map("".join), max_size=12).map("".join),
    st.lists(st.lists(WORDS_OF_TITLES, min_size=1, max_size=3).map(" ".join), max_size=5),
)
def test_titles_are_found_as_by_trying_each_at_each_line(text: str, titles: list[str]):
    position, expected = 0, []
    for title in titles:
        ends = []
        for line in re.finditer(r"^([^\w\n]*)(?=((?:[\dIVX][\dIVX.]*\s+)?))", text, re.MULTILINE | re.IGNORECASE):
            if line.start() < position:
                continue
            places = [*[line.end(2)] * bool(line[2]), line.end(1), *reversed(range(*line.span(1)))]
            ends += [(line.start(), *stands(text, place, title)) for place in places]
        ends = [each for each in ends if each[1]]
        start, end, _ = next((each for each in ends if each[2]), ends[0] if ends else (position, position, False))
        expected.append((start, end))
        position = end
    assert [(each.start, each.end) for each in headings(text, [(1, title) for title in titles])] == expected


def ruled(rows: list[list[str]], before: str, after: str) -> bytes:
    """A page with a table that lines are drawn around; a cell's words stand on lines of their own."""
    drawn, cells = [], []
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            x, y = 50 + 120 * c, 600 - 40 * r
            drawn.append(f"{x} {y} 120 40 re S")
            cells += [f"BT /F1 10 Tf {x + 5} {y + 26 - 12 * i} Td ({w}) Tj ET" for i, w in enumerate(cell.split())]
    lines = [f"BT /F1 10 Tf 50 {y} Td ({text}) Tj ET" for y, text in ((700, before), (300, after))]
    return pdf_of(
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        stream_of("\n".join([*drawn, lines[0], *cells, lines[1]])),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )


def test_a_row_of_a_ruled_table_is_one_line_where_the_table_stands(reading):
    rows = [["Kind", "Days a year", "Paid"], ["Sick leave", "no limit", ""], ["Holiday", "30", "yes"]]
    text = reading(ruled(rows, "Above it.", "Below it."), "a.pdf").pages[0].text
    assert text.split("\n") == [
        "Above it.", "Kind | Days a year | Paid", "Sick leave | no limit | ", "Holiday | 30 | yes", "Below it.",
    ]  # fmt: skip


def test_lines_that_only_lay_out_the_page_make_no_table(reading):
    cells = [[f"{'word ' * 3}" * 40, "short"], ["a", "b"]]
    assert " | " not in reading(ruled(cells, "Above.", "Below."), "a.pdf").pages[0].text


# OCR

ocr = pytest.mark.skipif(not has_ocr(), reason="the extra `ocr` is not installed")


def picture(*lines: str) -> "Image.Image":
    image = Image.new("L", (1000, 120 * len(lines)), 255)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((40, 20 + 120 * number), line, font=ImageFont.load_default(48))
    return image


def as_file(image: "Image.Image", kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@ocr
def test_a_picture_of_words_is_read_line_by_line(reading):
    document = reading(as_file(picture("Thirty days of leave", "for everybody"), "WEBP"), "a.pdf")
    assert (document.kind, document.pages[0].text) == ("image", "Thirty days of leave\nfor everybody")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_pictures_are_told_by_what_they_hold(tmp_path, kind):
    (tmp_path / "upload").write_bytes(as_file(Image.new("L", (8, 8)), kind))
    assert kind_of(tmp_path / "upload", "a.txt") == "image"


@ocr
def test_scanned_pages_are_read_and_the_others_keep_their_text(reading):
    scanned = reading(as_file(picture("Thirty days of leave"), "PDF"), "a.pdf")
    assert scanned.pages[0].text == "Thirty days of leave"
    assert scanned.notice == "1 of 1 pages were read by OCR"
    assert reading(pdf("Words", ""), "a.pdf").notice == "1 of 2 pages had no text"


@ocr
def test_pictures_without_words_damaged_ones_and_enormous_ones_are_refused(refusal):
    assert "no text was found" in refusal(as_file(Image.new("L", (300, 300), 255), "PNG"), "a.png")
    assert "is an image that is damaged" in refusal(as_file(picture("Words"), "PNG")[:300], "a.png")
    enormous = as_file(Image.new("1", (12_000, 12_000)), "PNG")
    assert "has 12,000 x 12,000 pixels, more than the 100,000,000" in refusal(enormous, "a.png")
    assert "only images in which none was found" in refusal(pdf("", ""), "a.pdf")


# Word


def test_a_style_that_is_called_a_heading_by_no_number_is_text(reading):
    document = docx.Document()
    document.add_paragraph("Words", style=document.styles.add_style("Heading ²", 1))
    assert reading(saved(document), "a.docx").pages[0].text == "Words"


def test_a_docx_gives_headings_items_and_tables_in_their_order(reading):
    document = docx.Document()
    document.add_heading("Leave", 1)
    document.add_paragraph("Before the table.")
    table = document.add_table(2, 2)
    for cell, text in zip((c for row in table.rows for c in row.cells), ["Year", "Days", "2024", "25"], strict=True):
        cell.text = text
    document.add_heading("Sick leave", 2)
    document.add_paragraph("An item", style="List Bullet")
    parsed = reading(saved(document), "leave.docx")
    assert parsed.kind == "docx" and parsed.pages[0].number is None
    assert parsed.pages[0].text == (
        "# Leave\n\nBefore the table.\n\nYear | Days\n2024 | 25\n\n## Sick leave\n\n- An item"
    )


def test_a_docx_loses_nothing_that_word_wraps_in_controls_or_tracks_as_inserted(reading):
    document = docx.Document()
    body = document.element.body
    body.insert(
        0, parse_xml(f"<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>")
    )
    body.insert(
        1,
        parse_xml(
            f"<w:p {W}><w:r><w:t>Kept</w:t></w:r><w:ins><w:r><w:t> and added</w:t></w:r></w:ins>"
            "<w:del><w:r><w:delText> and deleted</w:delText></w:r></w:del>"
            "<w:r><w:pict><w:txbxContent><w:p><w:r><w:t>In a box.</w:t></w:r></w:p></w:txbxContent>"
            "</w:pict></w:r></w:p>"
        ),
    )
    assert reading(saved(document), "a.docx").pages[0].text == "In a control.\n\nKept and added\n\nIn a box."


def test_a_docx_with_macros_is_read_and_its_macros_are_not(reading):
    members = dict(zipfile_members(word("Body")))
    types = members["[Content_Types].xml"]
    members["[Content_Types].xml"] = types.replace(
        b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
        b"application/vnd.ms-word.document.macroEnabled.main+xml",
    )
    members["word/vbaProject.bin"] = b"Sub AutoOpen()"
    assert reading(zipped(**members), "a.docm").pages[0].text == "Body"


def test_an_entity_in_a_docx_is_not_expanded(reading, refusal, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    members = dict(zipfile_members(word("Body")))
    xml = members["word/document.xml"].replace(b"Body", b"Body&x;")
    declared = f'<!DOCTYPE x [<!ENTITY x SYSTEM "{secret.as_uri()}">]><w:document'.encode()
    members["word/document.xml"] = xml.replace(b"<w:document", declared, 1)
    assert reading(zipped(**members), "a.docx").pages[0].text == "Body"


def zipfile_members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def test_a_docx_cut_short_is_refused(refusal):
    content = word("Body")
    assert "is cut short or damaged" in refusal(content[: len(content) // 2], "a.docx")


def test_a_damaged_part_of_a_docx_is_reported_without_a_traceback(refusal):
    members = dict(zipfile_members(word("Body")))
    members["word/document.xml"] = members["word/document.xml"][:400]
    assert "is damaged, or too large" in refusal(zipped(**members), "a.docx")


# HTML

PAGE = """<!doctype html><html><head><title>Leave policy</title><script>var hidden = 1</script></head><body>
<nav><ul><li><a href=/>Home</a></li><li><a href=/a>About us</a></li></ul></nav>
<article><h1>Leave policy</h1><p>{long}</p><h2>Carrying <b>over</b></h2><p>{long} It ends<sup>[3]</sup>.</p></article>
<footer>Imprint</footer></body></html>""".format(long="Every employee has thirty days of leave a year. " * 8)


def test_an_html_page_gives_its_article_with_headings_and_without_menus(reading):
    document = reading(PAGE.encode(), "policy.html")
    text = document.pages[0].text
    assert document.kind == "html"
    assert "# Leave policy\n" in text and "\n## Carrying over\n" in text and "It ends." in text
    assert not any(word in text for word in ("About us", "Imprint", "hidden", "**", "<"))


def test_a_page_without_an_article_is_read_whole(reading):
    html = "<html><title>Prices</title><body><footer>Tea <b>2</b><nav><table><tr><td>a<td>b</table>"
    assert reading(html.encode(), "p.html").pages[0].text == "# Prices\n\nTea 2\n\na | b"


def test_a_row_of_a_table_in_a_page_is_one_line_however_its_source_is_written(reading):
    html = """<html><body><h1>Prices</h1>
    <p>All of them
    in euros.</p><table>
      <tr>
        <th>Tea</th>
        <td><p>2</p></td>
      </tr>
      <tr><th>Coffee</th> <td>3</td></tr>
    </table>{}</body></html>"""
    plain, code = html.format("Ask."), html.format("<footer><nav><pre>a\nb</pre>Ask.</nav></footer>")
    rows = "# Prices\n\nAll of them in euros.\n\nTea | 2\nCoffee | 3\n"
    assert reading(plain.encode(), "p.html").pages[0].text == f"{rows}Ask."
    assert "Tea | 2" in reading(code.encode(), "p.html").pages[0].text


def test_a_page_says_its_own_encoding(reading):
    html = '<html><head><meta charset="big5"></head><body><p>中文網頁</p></body></html>'
    assert "中文網頁" in reading(html.encode("big5"), "p.html").pages[0].text


def test_nothing_that_a_page_names_is_fetched(reading):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        reading(
            f'<!DOCTYPE html SYSTEM "{url}"><html><head><link rel=stylesheet href="{url}"><base href="{url}">'
            f'<script src="{url}"></script></head><body><p>Words</p><img src="{url}"><iframe src="{url}">'.encode(),
            "p.html",
        )
        with pytest.raises(TimeoutError):
            server.accept()


def test_elements_nested_ten_thousand_deep_do_no_harm(reading):
    assert "Deep" in reading(b"<html><body>" + b"<div>" * 10_000 + b"Deep", "p.html").pages[0].text


# Text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "naïve 模型 🙂"),
        ("utf-8-sig", "naïve 模型"),
        ("utf-16", "naïve 模型"),
        ("utf-16-le", "Plain words without a mark, as some Windows programs write them."),
        ("gb18030", "检索增强生成模型结合了预训练的参数记忆与非参数记忆,可以回答问题。" * 4),
        ("big5", "檢索增強生成模型結合了預訓練的參數記憶與非參數記憶，可以回答問題。" * 4),
        ("cp932", "この文書では、社内の休暇制度について説明します。従業員は年間二十日の有給休暇を取得できます。" * 4),
        ("utf-32-le", "Plain words without a mark, in four bytes each, as few programs write them."),
        ("cp1250", "Każdemu pracownikowi przysługuje dwadzieścia dni urlopu, a wniosek składa się na piśmie. " * 3),
        (
            "iso8859_2",
            "Každý zaměstnanec má nárok na dovolenou, kterou určí žádost; délka závisí na věku a šesti letech. " * 3,
        ),
        ("cp1254", "Her çalışanın yılda yirmi gün izni vardır; başvuru yöneticiye yazılı olarak yapılır, ığdır. " * 3),
        ("cp1251", "Генерация с дополненной выборкой отвечает на вопросы по документам. " * 4),
        ("cp1252", "Les congés payés sont fixés à trente jours par année, même à l’étranger. " * 4),
    ],
)
def test_text_is_read_in_its_encoding(reading, encoding, text):
    document = reading(text.encode(encoding), "notes.txt")
    assert (document.kind, document.pages[0].text) == ("text", text)


@pytest.mark.parametrize("at", [0, 200, -1])
@pytest.mark.parametrize(
    "text", ["Übrigens hat jeder Anspruch auf schönen Urlaub. " * 9, "Congés payés à l’été. " * 20]
)
def test_a_damaged_byte_in_utf_8_costs_one_character(reading, text, at):
    content = text.encode()
    there = reading(content[:at] + b"\xff" + content[at:], "notes.txt").pages[0].text
    assert there.count("\ufffd") <= 3  # of a character that it stands in the midst of, more
    assert len(there) - 3 <= len(text)
    assert there[20:150] in text or text[20:150] in there


def test_a_long_text_is_not_misread_for_where_the_sample_of_it_ends(reading):
    text = "检索增强生成模型。\n" * 12_000
    assert reading(text.encode("gb18030"), "long.txt").pages[0].text == text


def test_markdown_is_kept_as_it_is(reading):
    text = "# Title\n\n* a `b`\n\n| x | y |\n"
    document = reading(text.encode(), "README.MD")
    assert (document.kind, document.pages[0].text) == ("markdown", text)


def test_a_text_about_pdf_is_a_text(reading):
    assert reading(b"The header %PDF-1.7 opens the file.", "notes.md").kind == "markdown"


@pytest.mark.parametrize("text", ["The ftyp box names it.", "%!PS is how PostScript begins.", "%PDF- begins a PDF."])
def test_a_text_that_begins_nearly_as_another_kind_does_is_a_text(reading, text):
    assert reading(text.encode(), "notes.txt").pages[0].text == text


def test_line_ends_become_newlines_and_control_characters_go():
    assert clean("a\r\nb\rc\x0cd\u2028e\x00\x07\x1b[0m\tf\ufeff") == "a\nb\nc\nd\ne[0m\tf"


def test_no_lone_surrogate_survives():
    assert clean("a\ud800b\U0001f642") == "a\ufffdb\U0001f642"


# What a file is, is told by what it holds


def test_what_a_file_holds_outweighs_its_name(reading):
    assert reading(pdf("Words"), "a.docx").kind == "pdf"
    assert reading(word("Words"), "a.pdf").kind == "docx"
    assert reading(PAGE.encode(), "a.txt").kind == "html"


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"", "a.txt", "is empty"),
        (b" \n\t\r\n ", "a.txt", "holds no text"),
        (word(), "a.docx", "holds no text"),
        (bytes(range(256)) * 20, "a.txt", "is neither text nor of another type that is read"),
        (bytes(5000), "a.md", "is neither text nor of another type that is read"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "a.docx", "is encrypted"),
        (OLE + "WordDocument".encode("utf-16-le"), "a.doc", "is an old Word file (.doc): save it as .docx"),
        (OLE, "a.xls", "is an old Office file"),
        (OLE + "Workbook".encode("utf-16-le"), "a.xls", "is an old Excel file (.xls): save it as .xlsx"),
        (zipped(visio__document=b""), "a.vsdx", "is a Visio drawing, which is not read yet"),
        (zipped(readme=b"words"), "a.docx", "is a zip archive: unpack it"),
        (zipped(word__document=b"words"), "a.docx", "is a zip archive: unpack it"),
        (zipped(**OFFICE, word__document=b"words"), "a.docx", "is no ordinary Word file inside"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(99), "a.heic", "is an image or an icon of a kind that is not read"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a.pdf", "is an image"),
        (b"MZ\x90\x00\x03" + bytes(99), "a.exe", "is a program"),
        (b"\x7fELF\x02\x01\x01" + bytes(99), "a.txt", "is a program"),
        (b"\x1f\x8b\x08\x00" + bytes(99), "a.tar.gz", "is a packed archive"),
    ],
)
def test_what_cannot_be_read_says_what_it_is_and_what_to_do(refusal, content, name, expected):
    assert expected in refusal(content, name)


def test_a_name_from_a_stranger_cannot_break_the_line(refusal):
    assert "is empty" in refusal(b"", "a\nTraceback: \x1b[31m<script>\ud800.txt".replace("Traceback", "T"))


def test_a_folder_a_missing_file_and_a_large_one_are_refused(tmp_path, refusal):
    with pytest.raises(UnreadableDocument, match="'x' is a folder"):
        read(tmp_path, "x", max_bytes=10)
    with pytest.raises(UnreadableDocument, match=r"'x' cannot be opened .*: check that it is there"):
        read(tmp_path / "none", "x", max_bytes=10)
    assert "has 2.0 MB, more than the 1.0 MB" in refusal(bytes(2_000_000), "a.txt", max_bytes=1_000_000)


# Limits


def test_a_zip_bomb_is_refused_before_it_unpacks(refusal):
    started = time.monotonic()
    assert "as a zip bomb does" in refusal(zipped(**OFFICE, word__document=bytes(60_000_000)), "a.docx")
    many = zipped(**OFFICE, **{f"word__{i}": b"" for i in range(10_001)})
    assert "10,002 parts" in refusal(many, "a.docx")
    assert time.monotonic() - started < 10


def test_entities_that_stand_for_each_other_are_not_expanded(reading, refusal):
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    declared = f'<!DOCTYPE x [<!ENTITY e0 "{"ha" * 50}">{entities}]>'
    members = dict(zipfile_members(word("Body")))
    xml = members["word/document.xml"].replace(b"Body", b"&e9;")
    members["word/document.xml"] = xml.replace(b"<w:document", declared.encode() + b"<w:document", 1)
    assert "is damaged, or too large" in refusal(zipped(**members), "a.docx")
    html = f"<?xml version='1.0'?>{declared}<html><body><p>&e9;</p></body></html>"
    assert len(reading(html.encode(), "a.html").pages[0].text) < 100


def test_a_pdf_of_100_000_pages_is_refused_at_once(refusal):
    started = time.monotonic()
    content = pdf_of(
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count 100000 /Kids [{'3 0 R ' * 100_000}] >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>",
    )
    assert "has 100,000 pages, more than the 20,000 that are read: split it" in refusal(content, "a.pdf")
    assert time.monotonic() - started < 10


def test_50_mb_without_a_line_break_are_read(reading):
    started = time.monotonic()
    assert len(reading(b"x" * 50_000_000, "a.txt").pages[0].text) == 50_000_000
    assert time.monotonic() - started < 60


def test_a_file_that_takes_too_long_is_given_up(refusal):
    started = time.monotonic()
    assert "could not be read within 0.01 seconds" in refusal(word("Words"), "slow.docx", timeout_s=0.01)
    assert time.monotonic() - started < 2


def test_what_the_check_raises_ends_the_reading_at_once(tmp_path):
    (tmp_path / "large.txt").write_bytes(b"x" * 50_000_000)
    started = time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        read(tmp_path / "large.txt", "large.txt", max_bytes=10**8, check=check)
    assert time.monotonic() - started < 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the system has no limit on memory to set")
def test_a_file_that_takes_too_much_memory_is_given_up(refusal):
    content = ("Many words. " * 1_500_000).encode()
    assert "too much memory" in refusal(content, "big.txt", max_memory_bytes=70_000_000)


def test_files_are_read_from_many_threads_at_once(tmp_path):
    paths = [tmp_path / f"{i}.md" for i in range(6)]
    for path in paths:
        path.write_text(f"File {path.stem}")
    with ThreadPoolExecutor(6) as pool:
        documents = list(pool.map(lambda path: read(path, path.name, max_bytes=100), paths))
    assert [document.pages[0].text for document in documents] == [f"File {i}" for i in range(6)]


def test_a_program_without_a_main_guard_run_from_anywhere_can_read(tmp_path):
    (tmp_path / "a.md").write_text("Words")
    root = Path(__file__).parents[1]
    program = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path; from chatbot.parse import read\n"
        "print(read(Path('a.md'), 'a.md', max_bytes=99).pages[0].text)\n"
    )
    (tmp_path / "program.py").write_text(program)
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "Words\n"


def test_the_reading_process_imports_only_the_parser_it_needs():
    program = "import sys, chatbot.parse.worker; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "lxml", "docx", "pypdfium2", "trafilatura"} & set(ran.stdout.split())
