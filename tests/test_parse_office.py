"""Slides, sheets, rows, books and mails, built here and read in the process that reads them in the product."""

import base64
import io
import json
import zipfile
import zlib
from datetime import date, datetime, time
from email.message import EmailMessage

import openpyxl
import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from chatbot.errors import UnreadableDocument
from chatbot.parse import read
from chatbot.parse.rows import lines
from chatbot.passage import Document
from chatbot.split import split

ENTITIES = [f'<!ENTITY {name} "{f"&{inner};" * 10}">' for inner, name in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{"".join(ENTITIES)}]>'


@pytest.fixture
def reading(tmp_path):
    """Content and name in, document out."""

    def read_bytes(content: bytes, name: str) -> Document:
        path = tmp_path / "upload"  # as uploads are kept: under a name that tells nothing
        path.write_bytes(content)
        return read(path, name, max_bytes=100_000_000)

    return read_bytes


@pytest.fixture
def refusal(reading):
    """Content and name in, the one line that says why it is not read out."""

    def line(content: bytes, name: str) -> str:
        with pytest.raises(UnreadableDocument) as caught:
            reading(content, name)
        message = str(caught.value)
        assert repr(name) in message and "\n" not in message and "upload" not in message
        return message

    return line


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


TYPES = b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(content: bytes, member: str, old: str, new: str) -> bytes:
    """The archive with something else in one of its members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert old.encode() in members[member]
    return zipped(members | {member: members[member].replace(old.encode(), new.encode(), 1)})


def passages(document: Document, max_tokens: int) -> list:
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    return split(document, "d", max_tokens=max_tokens, tokenizer=tokenizer)


# Rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["City", "Size"], ["Nice", "3"]], ["City | Size", "- City: Nice | Size: 3"]),
        ([["City", ""], ["Nice", "3"]], ["City", "- Nice | 3"]),  # one cell is a title, no header
        ([["Of cities"], ["City", "Size"], ["Nice", "3"]], ["Of cities", "City | Size", "- City: Nice | Size: 3"]),
        (
            [["Item", "2019", "2020-05"], ["Tea", "1", "2"]],
            ["Item | 2019 | 2020-05", "- Item: Tea | 2019: 1 | 2020-05: 2"],
        ),
        ([["Tea", "17"], ["Milk", "4"]], ["- Tea | 17", "- Milk | 4"]),  # numbers: no header
        ([["A", "B"], ["", "2"], ["1", "2", "3"]], ["A | B", "- B: 2", "- A: 1 | B: 2 | 3"]),
        ([["Name:", "Ann"], ["Age:", "9"]], ["- Name: | Ann", "- Age: | 9"]),  # a form
        ([["Name:", "Age:"], ["Ann", "9"]], ["Name: | Age:", "- Name: Ann | Age: 9"]),
        ([["Q", "W" * 81], ["a", "b"]], [f"- Q | {'W' * 81}", "- a | b"]),  # prose: no header
        ([["A", "B"], ["1", "2"], [], ["3", "4"]], ["A | B", "- A: 1 | B: 2", "", "- A: 3 | B: 4"]),
        (
            [["A", "B"], ["1", "2"], ["", ""], ["C", "D"], ["3", "4"]],
            ["A | B", "- A: 1 | B: 2", "", "C | D", "- C: 3 | D: 4"],
        ),
        ([["#", "Name"], ["1", "a\n b"]], ["- # | Name", "- #: 1 | Name: a b"]),  # neither heading nor line break
        ([["Words"], ["More"]], ["Words", "More"]),
    ],
)
def test_each_row_is_written_with_its_headers(rows, expected):
    assert list(lines(rows)) == expected


def test_a_csv_is_read_whatever_its_delimiter_and_encoding(reading):
    for content, name in (
        ("Stadt;Größe\nKöln;1,5\n".encode("cp1252"), "a.csv"),
        ("Stadt\tGröße\r\nKöln\t1,5\r\n".encode("utf-16"), "a.txt.tsv"),
        ('sep=|\n"Stadt"|Größe\nKöln|1,5\n'.encode(), "a.csv"),
        ('Stadt,Größe\n\n"Köln","1,5"\n'.encode(), "A.CSV"),
    ):
        document = reading(content, name)
        assert (document.kind, document.pages[0].text) == ("csv", "Stadt | Größe\n- Stadt: Köln | Größe: 1,5")


def test_a_row_with_line_breaks_in_quotes_is_one_row(reading):
    assert reading(b'A,B\n"1\n2",3\n', "a.csv").pages[0].text.endswith("- A: 1 2 | B: 3")


def test_passages_of_rows_end_with_rows_and_say_what_their_values_are(reading):
    rows = [f"Person {i},some very long words about what this person did in the year,{i}" for i in range(40)]
    document = reading("\n".join(["Name,What was done,Age", *rows]).encode(), "a.csv")
    cut = passages(document, 80)
    assert len(cut) > 10
    for passage in cut:
        assert document.pages[0].text[passage.start : passage.end] == passage.text
        assert passage.text.startswith(("- Name: Person", "Name | What was done | Age"))
        assert passage.text.rpartition("\n")[2].startswith("- Name: ") and "| Age: " in passage.text.rpartition("\n")[2]


def test_a_csv_that_is_one_endless_line_or_quote_is_refused(refusal):
    assert "has a line of 5,000,000 characters" in refusal(b"word," * 1_000_000, "a.csv")
    assert "quote that is never closed" in refusal(b'a,b\n"' + b"word word\n" * 20_000, "a.csv")


# Excel


def workbook(*sheets: tuple[str, list[list[object]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return saved(book)


def test_a_workbook_gives_each_sheet_a_heading_and_each_row_its_headers(reading):
    document = reading(
        workbook(("Cities", [["City", "Size"], ["Nice", 3.5]]), ("None", []), ("Note", [["Hi"]])), "a.xlsx"
    )
    assert document.kind == "xlsx" and [page.number for page in document.pages] == [None]
    assert document.pages[0].text == "# Cities\n\nCity | Size\n- City: Nice | Size: 3.5\n\n# Note\n\nHi"
    assert [passage.heading for passage in passages(document, 20)] == ["Cities", "Note"]


def test_values_are_written_as_the_sheet_shows_them(reading):
    book = openpyxl.Workbook()
    book.active.append(["v", date(2024, 5, 1), datetime(2024, 5, 1, 9, 30), time(9, 30), 0.1 + 0.2, 3.0, True, 0.25])
    book.active["H1"].number_format = "0.0%"
    text = reading(saved(book), "a.xlsx").pages[0].text
    assert text.endswith("- v | 2024-05-01 | 2024-05-01 09:30 | 09:30:00 | 0.3 | 3 | TRUE | 25%")


def test_formulas_are_not_evaluated(reading):
    content = workbook(("S", [["A", "B"], ["x", "=1+1"], ["y", '=WEBSERVICE("http://127.0.0.1")']]))
    content = changed(content, "xl/worksheets/sheet1.xml", "<f>1+1</f><v></v>", "<f>1+1</f><v>17</v>")
    assert reading(content, "a.xlsx").pages[0].text == "# S\n\nA | B\n- A: x | B: 17\n- A: y"


def test_a_workbook_that_is_nearly_all_empty_is_read_or_refused_soon(reading, refusal):
    content = workbook(("S", [["A"]]))
    start = '<row r="1"><c r="A1"'
    far = '<row r="1"><c r="XFD1" t="n"><v>5</v></c></row><row r="1048576"><c r="A1048576"'
    text = reading(changed(content, "xl/worksheets/sheet1.xml", start, far), "a.xlsx").pages[0].text
    assert text == "# S\n\n5\nA"
    wide = "".join(f'<row r="{i}"><c r="XFD{i}" t="n"><v>5</v></c></row>' for i in range(2, 700))
    bomb = changed(content, "xl/worksheets/sheet1.xml", "</sheetData>", f"{wide}</sheetData>")
    assert "more than 10,000,000 cells" in refusal(bomb, "a.xlsx")


def test_an_entity_bomb_in_a_workbook_is_refused(refusal):
    content = workbook(("S", [["A"]]))
    bomb = changed(content, "xl/worksheets/sheet1.xml", "<worksheet ", f"{BOMB}<worksheet ")
    assert "is damaged" in refusal(bomb, "a.xlsx")


def test_a_binary_workbook_is_refused(refusal):
    assert "a binary one (.xlsb)" in refusal(
        zipped({"xl/workbook.bin": b"", "[Content_Types].xml": "<Types/>"}), "a.xlsb"
    )


# PowerPoint


def presentation() -> "pptx.presentation.Presentation":
    show = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Our\vyear"
    first.placeholders[1].text = "Sales grew\nCosts fell"
    first.placeholders[1].text_frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "Smile here."
    second = show.slides.add_slide(show.slide_layouts[6])
    table = second.shapes.add_table(3, 2, 0, 0, Inches(4), Inches(2)).table
    for row, texts in enumerate([("City", "Size"), ("Nice", "3"), ("", "4")]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "In a group"
    show.slides.add_slide(show.slide_layouts[6])
    return show


def test_a_presentation_gives_slides_with_titles_lists_tables_groups_and_notes(reading):
    document = reading(saved(presentation()), "a.pptx")
    assert (document.kind, document.notice) == ("pptx", "1 of 3 slides had no text")
    assert [(page.number, page.text) for page in document.pages] == [
        (1, "# Our year\n\n- Sales grew\n  - Costs fell\n\nNotes:\nSmile here."),
        (2, "# Slide 2\n\nCity | Size\n- City: Nice | Size: 3\n- City: Nice | Size: 4\n\nIn a group"),
        (3, ""),
    ]
    assert {(passage.page, passage.heading) for passage in passages(document, 50)} == {(1, "Our year"), (2, "Slide 2")}


def test_a_chart_says_its_values(reading):
    show = pptx.Presentation()
    values = CategoryChartData()
    values.categories = ["Tea", "Milk"]
    values.add_series("North", (1.5, 2))
    values.add_series("South", (3, None))
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Sales"
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(4), Inches(3), values).chart
    chart.has_title, chart.chart_title.text_frame.text = True, "By region"
    text = reading(saved(show), "a.pptx").pages[0].text
    assert text == "# Sales\n\nBy region\n- Tea | North: 1.5 | South: 3\n- Milk | North: 2"


def test_a_slide_show_and_one_with_macros_are_read(reading):
    main = "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"
    for kind in (
        "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml",
        "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml",
    ):
        content = changed(saved(presentation()), "[Content_Types].xml", main, kind)
        assert reading(content, "a.ppsx").pages[0].text.startswith("# Our year")


def test_an_entity_in_a_presentation_is_not_expanded(reading, tmp_path):
    (tmp_path / "secret").write_text("the secret")
    declared = f'<!DOCTYPE x [<!ENTITY x SYSTEM "{(tmp_path / "secret").as_uri()}">]><p:sld '
    content = changed(saved(presentation()), "ppt/slides/slide1.xml", "<p:sld ", declared)
    content = changed(content, "ppt/slides/slide1.xml", "Sales grew", "Sales &x; grew")
    assert "the secret" not in reading(content, "a.pptx").pages[0].text


def test_a_presentation_without_its_parts_is_refused(refusal):
    assert "is no ordinary PowerPoint file inside" in refusal(
        zipped({"[Content_Types].xml": TYPES, "ppt/presentation.xml": b"x"}), "a.pptx"
    )


# OpenDocument


def opendocument(body: str, before: str = "", manifest: str = "") -> bytes:
    names = ("office", "text", "table", "drawing", "presentation", "style")
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in names)
    styles = '<style:style style:name="P1" style:parent-style-name="Title"/>'
    content = f"<office:automatic-styles>{styles}</office:automatic-styles><office:body>{body}</office:body>"
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": f"<manifest>{manifest}</manifest>",
            "content.xml": f"{before}<office:document-content {spaces}>{content}</office:document-content>",
        }
    )


def cell(text: str = "", tag: str = "cell", **counts: int) -> str:
    """For instance `columns_repeated=2`."""
    attributes = " ".join(f'table:number-{name.replace("_", "-")}="{count}"' for name, count in counts.items())
    paragraph = f"<text:p>{text}</text:p>" if text else ""
    return f"<table:table-{tag} {attributes}>{paragraph}</table:table-{tag}>"


def row(*cells: str, repeated: int = 1) -> str:
    return f'<table:table-row table:number-rows-repeated="{repeated}">{"".join(cells)}</table:table-row>'


def frame(*paragraphs: str, kind: str = "outline") -> str:
    texts = "".join(f"<text:p>{paragraph}</text:p>" for paragraph in paragraphs)
    return f'<drawing:frame presentation:class="{kind}"><drawing:text-box>{texts}</drawing:text-box></drawing:frame>'


COVERED = "<table:covered-table-cell/>"


def item(*inner: str) -> str:
    return f"<text:list><text:list-item>{''.join(inner)}</text:list-item></text:list>"


def test_an_odt_gives_headings_items_tables_notes_and_boxes_without_deleted_text(reading):
    note = "<text:note><text:note-citation>1</text:note-citation><text:p>A note</text:p></text:note>"
    comment = "<office:annotation><text:p>hm</text:p></office:annotation>"
    body = f"""<office:text><text:tracked-changes><text:p>gone</text:p></text:tracked-changes>
    <text:p text:style-name="P1">Leave</text:p><text:h text:outline-level="2">Sick  leave</text:h>
    <text:p>A<text:s/>word{note} and<text:span> more</text:span>{comment}{frame("In a box")}</text:p>
    {item("<text:p>One</text:p>", item("<text:p>Two</text:p>"))}
    <table:table><table:table-header-rows>{row(cell("City"), cell("Size"))}</table:table-header-rows>
    {row(f"<table:table-cell>{item('<text:p>Nice</text:p>')}</table:table-cell>", cell("3"))}</table:table>
    </office:text>"""
    document = reading(opendocument(body), "a.odt")
    assert document.kind == "odt"
    assert document.pages[0].text == (
        "# Leave\n\n## Sick leave\n\nA word [A note] and more\n\nIn a box\n\n- One\n\n  - Two\n\n"
        "City | Size\n- City: Nice | Size: 3"
    )


def test_an_ods_keeps_its_columns_through_repeated_empty_and_merged_cells(reading):
    empty = cell(columns_repeated=2)
    rows = [
        row(cell("A"), empty, cell("B", columns_spanned=2), COVERED),
        row(cell("x", rows_spanned=2), empty, cell("7", columns_repeated=2), cell(columns_repeated=16379), repeated=2),
        row(COVERED, empty, cell("9")),
        row(cell("end"), repeated=1_048_000),
        row(cell(columns_repeated=16384), repeated=1_048_000),
    ]
    sheet = f'<table:table table:name="S">{"".join(rows)}</table:table>'
    document = reading(opendocument(f"<office:spreadsheet>{sheet}</office:spreadsheet>"), "a.ods")
    twice = "- A: x | B: 7 | B: 7\n" * 2
    assert (document.kind, document.pages[0].text) == ("ods", f"# S\n\nA | B | B\n{twice}- A: x | B: 9\n- A: end")


def test_an_odp_gives_slides_with_titles_and_notes(reading):
    notes = f"<presentation:notes>{frame('1', kind='page-number')}{frame('Smile.')}</presentation:notes>"
    slide = f"<drawing:page>{frame('Words')}{frame('Our', 'year', kind='title')}{notes}</drawing:page>"
    body = f"<office:presentation>{slide}<drawing:page/></office:presentation>"
    document = reading(opendocument(body), "a.odp")
    assert (document.kind, document.notice) == ("odp", "1 of 2 slides had no text")
    assert [(page.number, page.text) for page in document.pages] == [
        (1, "# Our year\n\nWords\n\nNotes:\nSmile."),
        (2, ""),
    ]


def test_an_entity_in_an_odt_is_not_expanded(reading, tmp_path):
    (tmp_path / "secret").write_text("the secret")
    declared = f'<!DOCTYPE x [<!ENTITY x SYSTEM "{(tmp_path / "secret").as_uri()}"><!ENTITY y "yes">]>'
    body = "<office:text><text:p>Words &x; &y; more</text:p></office:text>"
    assert reading(opendocument(body, before=declared), "a.odt").pages[0].text == "Words"


def test_opendocument_with_a_password_a_bomb_or_no_text_is_refused(refusal):
    text = "<office:text><text:p>Words &i;</text:p></office:text>"
    assert "is encrypted" in refusal(opendocument("x", manifest="<encryption-data/>"), "a.odt")
    assert "is damaged, or too large" in refusal(opendocument(text, before=BOMB), "a.odt")
    assert "formula, chart or database" in refusal(opendocument("<office:database/>"), "a.odb")
    deep = "<text:section>" * 1000 + "</text:section>" * 1000
    assert "is damaged, or too large" in refusal(opendocument(f"<office:text>{deep}</office:text>"), "a.odt")


# RTF


def test_an_rtf_gives_its_text_in_its_code_page_without_pictures(reading):
    picture = (b"89504e47" * 16 + b"\n") * 200
    rtf = (
        rb"{\rtf1\ansi\ansicpg1251{\fonttbl{\f0 Arial;}}{\pict\pngblip " + picture + rb"}\'cf\'f0\'e8\u233?t\par Next}"
    )
    document = reading(rtf, "a.txt")
    assert (document.kind, document.pages[0].text) == ("rtf", "Приét\nNext")


# EPUB

CHAPTER = (
    "<?xml version='1.0'?><html><head><title/><script src='x'/></head>"
    "<body><h1>{}</h1><p>Words&#160;here.</p></body></html>"
)


def book(**members: str) -> bytes:
    package = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
    <metadata><dc:title>The Book</dc:title></metadata><manifest>
    <item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
    <item id="b" href="text/b%20b.xhtml" media-type="application/xhtml+xml"/>
    <item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
    <item id="i" href="i.png" media-type="image/png"/></manifest>
    <spine><itemref idref="n"/><itemref idref="b"/><itemref idref="a"/><itemref idref="none"/></spine></package>"""
    container = '<container><rootfiles><rootfile full-path="OPS/package.opf"/></rootfiles></container>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OPS/package.opf": package,
            "OPS/nav.xhtml": CHAPTER.format("Contents"),
            "OPS/text/a.xhtml": CHAPTER.format("Last"),
            "OPS/text/b b.xhtml": CHAPTER.format("First"),
        }
        | {name.replace("__", "/"): content for name, content in members.items()}
    )


def test_a_book_gives_its_chapters_in_reading_order(reading):
    document = reading(book(), "a.zip")
    assert document.kind == "epub"
    assert document.pages[0].text == "The Book\n\n# First\n\nWords here.\n\n# Last\n\nWords here."


@pytest.mark.parametrize("place", ["../OPS/./text/a.xhtml", "/OPS/text/a.xhtml", "text/a.xhtml#top"])
def test_a_chapter_is_found_however_its_place_is_written(reading, place):
    package = f"""<package><manifest><item id="a" href="{place}" media-type="application/xhtml+xml"/></manifest>
    <spine><itemref idref="a"/></spine></package>"""
    assert reading(book(**{"OPS/package.opf": package}), "a.epub").pages[0].text == "# Last\n\nWords here."


def test_a_chapter_that_is_not_in_the_book_is_told_of(reading):
    package = """<package><manifest><item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
    <item id="b" href="gone.xhtml" media-type="application/xhtml+xml"/></manifest>
    <spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
    document = reading(book(**{"OPS/package.opf": package}), "a.epub")
    assert document.pages[0].text == "# Last\n\nWords here."
    assert document.notice == "1 of 2 chapters were not found in the book"


def test_a_locked_book_is_refused_and_one_with_locked_fonts_is_not(reading, refusal):
    locked = '<encryption><CipherData><CipherReference URI="{}"/></CipherData></encryption>'
    name = "META-INF/encryption.xml"
    assert "is locked by the shop" in refusal(book(**{name: locked.format("OPS/text/b%20b.xhtml")}), "a.epub")
    assert reading(book(**{name: locked.format("OPS/font.otf")}), "a.epub").kind == "epub"


def test_a_book_without_its_parts_or_with_a_bomb_is_refused(refusal):
    assert "lacks a part that every EPUB book has" in refusal(
        book(**{"META-INF/container.xml": "<container/>"}), "a.epub"
    )
    bomb = book(**{"OPS/package.opf": f"{BOMB}<package><metadata><title>&i;</title></metadata></package>"})
    assert "is damaged, or too large" in refusal(bomb, "a.epub")


# Mail


def mail(text: str = "", html: str = "", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for header, value in headers.items():
        message[header] = value
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message


def test_a_mail_gives_its_subject_people_and_text_and_names_what_is_attached(reading):
    message = mail("Hello\nBest,\n-- \nAnn", "<p>Hello in HTML</p>", Subject="Über uns", From="Ann <a@b.c>", To="d@e.f")
    message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="plan.pdf")
    document = reading(message.as_bytes(), "a.eml")
    assert (document.kind, document.notice) == ("eml", "1 attached, not read: plan.pdf")
    assert document.pages[0].text == "# Über uns\n\nFrom: Ann <a@b.c>\nTo: d@e.f\n\nHello\nBest,\n\nAnn"


def test_a_mail_without_plain_text_gives_its_html(reading):
    message = mail(" \n", "<html><body><h2>Hi</h2><p>In <b>HTML</b></p></body></html>", Subject="S")
    assert reading(message.as_bytes(), "a.eml").pages[0].text == "# S\n\n## Hi\n\nIn HTML"


def test_a_forwarded_mail_is_read_where_it_lies(reading):
    outer = mail("See below", Subject="Fwd")
    outer.add_attachment(mail("Inner words", Subject="Inner", Date="Mon, 01 Jan 2024 10:00:00 +0000"))
    text = reading(outer.as_bytes(), "a.eml").pages[0].text
    assert text == "# Fwd\n\nSee below\n\n## Inner\n\nDate: Mon, 01 Jan 2024 10:00:00 +0000\n\nInner words"


def test_a_mail_says_its_own_encoding(reading):
    message = b"Subject: =?gb2312?B?xOO6ww==?=\nContent-Type: text/plain; charset=gb2312\n\n" + "你好".encode("gb2312")
    assert reading(message, "a.eml").pages[0].text == "# 你好\n\n你好"


@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/mixed; boundary=another"])
def test_a_mail_whose_parts_cannot_be_told_apart_keeps_its_text(reading, kind):
    part = "--x\nContent-Type: text/plain\n\nWords of the mail\n--x--\n"
    document = reading(f"Subject: S\nMIME-Version: 1.0\nContent-Type: {kind}\n\n{part}".encode(), "a.eml")
    assert "Words of the mail" in document.pages[0].text


def test_every_part_of_a_mail_is_read_or_told_of(reading):
    part = "--x\nContent-Type: {}\n\n{}\n"
    parts = [
        part.format("text/plain", "Words"),
        part.format("message/delivery-status", "Reporting-MTA: dns;x\n\nFinal-Recipient: rfc822;bo@x\nStatus: 5.1.1\n"),
        part.format("application/octet-stream", "data"),
        part.format("application/pdf; name=plan.pdf\nContent-ID: <f_1>\nContent-Disposition: attachment", "data"),
        part.format("image/png; name=logo.png\nContent-ID: <logo>\nContent-Disposition: inline", "data"),
    ]
    head = "Subject: S\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    document = reading(f"{head}{''.join(parts)}--x--\n".encode(), "a.eml")
    assert document.notice == "2 attached, not read: application/octet-stream, plan.pdf"
    assert "Words" in document.pages[0].text
    assert "Final-Recipient: rfc822;bo@x" in document.pages[0].text


def test_a_mail_is_known_by_its_headers_and_a_text_about_one_is_not(reading):
    head = b"Return-Path: <a@b.c>\nReceived: from x\n by y\nSubject: S\n\nWords"
    assert reading(head, "1700000000.M1").kind == "eml"
    assert reading(b"Subject: what I want to say\n\nReceived: yes", "a.txt").kind == "text"


def test_mails_nested_a_hundred_deep_and_endless_headers_do_no_harm(reading, refusal):
    message = mail("Core", Subject="S")
    for _ in range(100):
        outer = mail("Fwd", Subject="S")
        outer.add_attachment(message)
        message = outer
    assert "nests mails more than 60 deep" in refusal(message.as_bytes(), "a.eml")
    assert "Words" in reading(b"From: " + b"a@b.c, " * 500_000 + b"\n\nWords", "a.eml").pages[0].text


# msg_simple.msg of docling's tests (MIT): what Outlook writes, packed
OUTLOOK = (
    "c-"
    "rk)Ur!rH5T8AR0b^`Pz=<8e4kS_3R>+Pi2!c|uYt%>>5TQ~PML`KzZ7PZhBvq29M2gh6zO|~VR1s>Q^42d<@dc{(1LUtNRp}SVTkOp4?OpcV_-"
    "+>4AQWb`KF{v${$^%pXJ_y4zq+1p{T_P(6?6`KP%5{9Uuk1ln=PgjASByL<#L%fg|U_oXkXEJn1?(J!7LQv1{6S-F2FVT2G(H}$0i_$|F2-"
    "nDt&x@aejPi=6p6cnfqcYKR=Tj%FgBWWVrWX{I@@T?Tr4i22WUc(Lk@fJB2b_gJmhzEtJZVlFOWjMbsOx)p~0ZtNPXuwic1|A~zhG{VZ8_Mzv~"
    "C>-"
    "sVF_+|FNvwybEj+8Dvy!+kd?AOr~KfXunSEK*#_4;S<ovZ)TJpmKg%6qEKdah3X^BIm?#Ztu4rYs*p0LvnLh4XA;tND8c>!t&%U}GhOtSfLErP"
    "HPFAN||=;`56eKWsmroqhD*&pTZQR`ImR2S>yiYPH89Cip{k|A^y^jl-zmW0IeQF|+^vod?;MkD0;F3jT=fH`tWmuiE1?g73BY6~PB=z99G$Ho"
    "xw`GuU;(M{GVCbj}|Os`DGHFR02BhyI`wFCKK_HHA1oVe97)srvb#CFHbMUr3cNj+qDN7i|3Yq~A<O1hqpXsgCzS$FOPNCdohjg!2z)&HjPG+@"
    "DY*y(@mbdta&h-F<&isT$61#h+TW5b-lJm)Ys*Umq)Szvv07eq*p#VZZG)oG%OhqWwN3o%@yv{;16xN#{QB2|iKbw>@@$X-"
    "w_kEm}Z3@yw5V&>B8BFpBC>1e%$ZONKPYZMT`vB`j-"
    "V<q8<fSCIP_|80m^U&Njiu4U3?p3|6tSoppj=+E&t;U@afCTjns#9PA3%NeXG@vKH4aL-VPf>~1DbH`7U@D1sw^~WFHQ~gtzote*RSA3@2JE`m"
    "5Nx)CzSxmv_cj8tJ`!gj@xZ`IUVt+$9uify61-3VSi>Cd3N<QI^e}-g#9yfy;_HS152{-"
    "%^;s4(Fy7u==fAPlun1mnDv_D_30RsN0i~?Tx?fC4_uzxGj|3``br)&Q<CBLnXpT+-UBz!(!w}$=!lK*GP@lRL(Aj$tZ{--"
    "4U!<zorL5e>dKS$D^$MVA(_79QvUsm8Y!v0~>{>#bp*Bk$krv16S#tHc5`g`Md$@Qe-cM<k~O2(c>*q_^L-"
    "UB}^kZI>{kEZ>*EAo$Z%y*0U%k$nFnD-"
    "V?7HS@xMEr=fCl#N|yUpI>Zy?e#;;dIeU4lVnHOyksxRQVO)iwW~#xl~7_}{DC>)i3DN%&FC_3u;ek?#JNBKdzz>O{ql6VAW1egCQd{!0+zZ`!"
    "{9c;g?FI#KbDW9_fw{@2xiK)Lr<#~(wjY3E<Rv?&#TutNV@<BzWX{9E8pb^L~*i(hZr&-"
    "nZ<Zq=p=UajpeeY_r4`Xe$Q;Ac`)=9<Tp{(hIaPGa9F*?&NdCnmoK_~e<$?e3R%#8!D%3W)FO=DndqS-aN<=G*u51|vl^F#"
)


def test_an_outlook_message_gives_its_subject_people_and_text(reading):
    document = reading(zlib.decompress(base64.b85decode(OUTLOOK)), "a.txt")
    assert (document.kind, document.notice) == ("msg", "")
    assert document.pages[0].text == (
        '# Simple Email\n\nFrom: "Alice Example" <alice@example.com>\nTo: Bob Example <bob@example.com>\n'
        "Date: 2026-05-20 10:30 UTC\n\nHello Bob,\n\nThis is a simple email body."
    )


def test_each_of_many_alternatives_is_looked_at_once(refusal):
    blank = EmailMessage()
    blank.set_content(" ")
    for _ in range(50):
        outer = EmailMessage()
        outer["Content-Type"] = "multipart/alternative"
        outer.attach(blank)
        blank = outer
    assert "holds no text" in refusal(blank.as_bytes(), "a.eml")


def test_a_damaged_outlook_message_is_refused(refusal):
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "__properties_version1.0".encode("utf-16-le")
    assert "is damaged, or too large" in refusal(ole, "a.msg")


# JSON


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": {"c": "x", "d": None}}, "- a: 1\n- b.c: x"),
        ({"tags": ["p", "q", True]}, "- tags: p, q, true"),
        ([{"id": 1, "pos": {"x": 2}}, {"id": 2}], "- id: 1 | pos.x: 2\n- id: 2"),
        ({"rows": [{"id": 1, "n": [{"m": 2}]}]}, "- rows[0]: id: 1 | n[0].m: 2"),
        ([{"text": "word " * 120, "id": 1}], f"- [0].text: {('word ' * 120).strip()}\n- [0].id: 1"),
        ({"a": {}, "b": [], "c": ""}, "- d: 0"),
        ([["a", "b"], ["c"]], "- a, b\n- c"),
        (["one", "w" * 600], f"- one\n- [1]: {'w' * 600}"),
    ],
)
def test_json_is_written_as_paths_and_values_and_rows(reading, value, expected):
    value = value | {"d": 0} if expected == "- d: 0" else value
    document = reading(json.dumps(value).encode(), "a.json")
    assert (document.kind, document.pages[0].text) == ("json", expected)


def test_numbers_in_json_stay_as_they_are_written(reading):
    assert reading(b'{"a": 0.10, "b": 12345678901234567890123}', "a.json").pages[0].text == (
        "- a: 0.10\n- b: 12345678901234567890123"
    )


def test_what_json_says_twice_of_a_key_is_kept_twice(reading):
    text = reading(b'{"a": 1, "a": {"b": 2}, "c": 3, "a": 4}', "a.json").pages[0].text
    assert sorted(text.split("\n")) == ["- a.b: 2", "- a: 1", "- a: 4", "- c: 3"]


def test_json_lines_are_rows_and_what_is_no_json_is_text(reading):
    assert reading(b'{"a": 1}\n\n{"a": 2}\n', "a.txt").pages[0].text == "- a: 1\n- a: 2"
    for content in (b"[1] A list of sources\n[2] More", b"{not json", b"1\n2\n"):
        assert (reading(content, "a.json").kind, reading(content, "a.txt").kind) == ("text", "text")


def test_a_notebook_gives_its_text_its_code_and_what_it_printed(reading):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words"]},
        {"cell_type": "code", "source": "1 + 1", "outputs": [{"data": {"text/plain": ["2"], "image/png": "iVBO"}}]},
    ]
    document = reading(json.dumps({"nbformat": 4, "cells": cells}).encode(), "a.ipynb")
    assert (document.kind, document.pages[0].text) == ("markdown", "# Title\nWords\n\n```\n1 + 1\n```\n\n```\n2\n```")


def test_a_notebook_with_an_odd_cell_keeps_the_others(reading):
    cells = [
        {"cell_type": "markdown", "source": None},
        "no cell",
        {"cell_type": "code", "source": "1 + 1", "outputs": None},
        {"cell_type": "code", "source": ["2", "+2"], "outputs": [{"data": {"text/plain": None}}, {"data": None}, 3]},
        {"cell_type": "markdown", "source": "Words"},
    ]
    document = reading(json.dumps({"nbformat": 4, "cells": cells}).encode(), "a.ipynb")
    assert document.pages[0].text == "```\n1 + 1\n```\n\n```\n2+2\n```\n\nWords"


def test_json_nested_too_deep_is_refused(refusal):
    assert "nested hundreds of levels deep" in refusal(b"[" * 100_000, "a.json")
    assert "nested hundreds of levels deep" in refusal(b'{"a":' * 5000 + b"1" + b"}" * 5000, "a.json")


# What a file is, is told by what it holds


def test_what_a_file_holds_outweighs_its_name(reading):
    assert reading(saved(presentation()), "a.txt").kind == "pptx"
    assert reading(workbook(("S", [["A"]])), "a.csv").kind == "xlsx"
    assert reading(b"<!doctype html><p>Words", "a.csv").kind == "html"
    assert reading(b'{"a": 1}', "notes").kind == "json"


def test_a_name_decides_between_kinds_of_text(reading):
    content = b'{"a": "# b, c"}\n'
    kinds = {name: reading(content, name).kind for name in ("a.md", "a.py", "a.csv", "a.json", "a.YAML")}
    assert kinds == {"a.md": "markdown", "a.py": "code", "a.csv": "csv", "a.json": "json", "a.YAML": "code"}
    assert reading(content, "a.py").pages[0].text == content.decode()
