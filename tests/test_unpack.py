"""Zips of files, unpacked in the process that parses: whatever a member calls itself, it lies where we say."""

import errno
import io
import json
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chatbot.errors import PackedFiles, UnreadableDocument
from chatbot.parse import Member, read, unpack
from chatbot.parse.unpack import unpack as unpack_here
from chatbot.parse.worker import answer


def packed(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def unpacking(tmp_path: Path) -> Callable[[bytes], list[Member]]:
    def unpack_bytes(content: bytes) -> list[Member]:
        path, folder = tmp_path / "upload", tmp_path / "folder"
        path.write_bytes(content)
        folder.mkdir()
        return unpack(path, "a.zip", folder)

    return unpack_bytes


def contents(members: list[Member]) -> dict[str, bytes]:
    return {member.name: member.path.read_bytes() for member in members if member.path}


def test_a_zip_of_files_is_told_apart_from_a_document(tmp_path):
    (tmp_path / "upload").write_bytes(packed(("notes.md", b"# Notes")))
    with pytest.raises(PackedFiles, match=r"'a.zip' is a zip archive: unpack it"):
        read(tmp_path / "upload", "a.zip", max_bytes=1_000_000)
    (tmp_path / "upload").write_bytes(packed(("word/document.xml", b"<a/>"), ("[Content_Types].xml", b"<Types/>")))
    with pytest.raises(UnreadableDocument, match=r"'a.docx' is no zip of files: give it as a document"):
        unpack(tmp_path / "upload", "a.docx", tmp_path)


def test_members_are_named_by_their_place_and_hidden_ones_are_left_out(unpacking):
    members = unpacking(
        packed(("b.txt", b"B"), ("in/a.md", b"A"), (".git/x", b"x"), ("__MACOSX/._b.txt", b"x"), ("e/", b""))
    )
    assert contents(members) == {"a.zip/b.txt": b"B", "a.zip/in/a.md": b"A"}


def test_no_member_can_choose_where_it_lies(unpacking, tmp_path):
    names = ["../../up.txt", "/etc/abs.txt", "C:\\windows\\drive.txt", "..\\..\\back.txt", "line\nbreak.txt"]
    members = unpacking(packed(*[(name, name.encode()) for name in names]))
    assert [member.name for member in members] == [
        "a.zip/up.txt", "a.zip/etc/abs.txt", "a.zip/windows/drive.txt", "a.zip/back.txt", "a.zip/line break.txt",
    ]  # fmt: skip
    assert {member.path.parent for member in members if member.path} == {tmp_path / "folder"}
    assert sorted(contents(members).values()) == sorted(name.encode() for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "folder"}


def test_a_name_packed_on_a_chinese_or_russian_system_is_read(unpacking):
    name = "检索增强生成模型与文档问答说明.txt"
    marked = packed((name, b"words"))
    raw = name.encode("gb18030")
    stand_in = "x" * len(raw)  # of the same length, without the flag that says UTF-8
    content = packed((stand_in, b"words")).replace(stand_in.encode(), raw)
    assert [member.name for member in unpacking(content)] == [f"a.zip/{name}"] and marked


def test_a_zip_in_the_zip_is_unpacked_and_one_in_that_is_not(unpacking):
    innermost = packed(("deep.txt", b"deep"))
    inner = packed(("x.txt", b"X"), ("innermost.zip", innermost))
    members = unpacking(packed(("inner.zip", inner), ("y.txt", b"Y")))
    assert contents(members) == {"a.zip/inner.zip/x.txt": b"X", "a.zip/y.txt": b"Y"}
    (failed,) = [member for member in members if member.path is None]
    assert failed.name == "a.zip/inner.zip/innermost.zip" and "is a zip in a zip in a zip: unpack it" in failed.problem


def test_a_member_that_cannot_be_had_is_named_and_the_others_are_unpacked(unpacking):
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = bytearray(
        packed(("locked.txt", b"secret"), (link, b"/etc/passwd"), ("fine.txt", b"fine"), ("bad.txt", b"b" * 99))
    )
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1  # the first member's flag of encryption
    start = content.index(b"bad.txt") + len(b"bad.txt")
    content[start : start + 4] = b"\xff\xff\xff\xff"
    members = unpacking(bytes(content))
    assert contents(members) == {"a.zip/fine.txt": b"fine"}
    assert {member.name: member.problem.partition(" is ")[2] for member in members if not member.path} == {
        "a.zip/locked.txt": "encrypted: give it without the password",
        "a.zip/link.txt": "a link to another file: give that file",
        "a.zip/bad.txt": "damaged, or packed in a way that is not read: pack it again",
    }


@pytest.mark.parametrize("members", [(), (("a/", b""),), ((".notes/a.txt", b"Hidden"), ("__MACOSX/x", b"x"))])
def test_a_zip_without_a_file_to_read_says_so_wherever_it_lies(unpacking, tmp_path, members):
    (member,) = unpacking(packed(("in.zip", packed(*members))))
    assert (member.name, member.path) == ("a.zip/in.zip", None)
    assert "'a.zip/in.zip' holds no file to read" in member.problem
    (tmp_path / "upload").write_bytes(packed(*members))
    with pytest.raises(UnreadableDocument, match=r"'a.zip' holds no file to read"):
        unpack(tmp_path / "upload", "a.zip", tmp_path / "folder")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_costs_no_other_however_it_is_packed(unpacking, packing):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("damaged.txt", random.Random(0).randbytes(3000))
        archive.writestr("whole.txt", "Words. " * 50)
    content = buffer.getvalue()
    members = unpacking(content[:100] + b"\xff" * 400 + content[500:])
    assert contents(members) == {"a.zip/whole.txt": b"Words. " * 50}
    assert "is damaged" in members[0].problem


def test_names_that_are_no_text_cost_no_file_and_none_takes_another_s_name(unpacking):
    content = packed(("AAAAAA.txt", b"A"), ("BBBBBB.txt", b"B"), ("CC.txt", b"C"))
    content = content.replace(b"AAAAAA", b"\x81\nA\x82\x83A").replace(b"BBBBBB", b"\x01\x02\x03\x04\x84B")
    members = unpacking(content)
    assert sorted(contents(members).values()) == [b"A", b"B", b"C"]
    assert all(member.name.endswith(".txt") for member in members)


def test_a_zip_that_unpacks_to_too_much_is_refused_wherever_it_lies(unpacking, tmp_path):
    bomb = packed(("zeros", bytes(60_000_000)))
    members = unpacking(packed(("bomb.zip", bomb), ("fine.txt", b"fine")))
    assert contents(members) == {"a.zip/fine.txt": b"fine"}
    assert "'a.zip/bomb.zip' would unpack to 60 MB" in members[0].problem
    assert len(list((tmp_path / "folder").iterdir())) == 1
    (tmp_path / "upload").write_bytes(bomb)
    with pytest.raises(UnreadableDocument, match="as a zip bomb does"):
        unpack(tmp_path / "upload", "a.zip", tmp_path / "folder")


def test_zips_in_a_zip_count_together(unpacking):
    inner = packed(*[(f"{number}.txt", b"") for number in range(6_000)])
    members = unpacking(packed(("one.zip", inner), ("two.zip", inner)))
    assert len(contents(members)) == 6_000
    assert [member.problem.partition(":")[0] for member in members if not member.path] == [
        "'a.zip/two.zip' is too much, with what it was packed with"
    ]


def test_what_the_zips_in_a_zip_unpack_to_counts_together(unpacking):
    """Three of 180 MB in one: each is within the 512 MB by itself, and the outer holds little."""
    filler = random.Random(0).randbytes(2_000_000) + bytes(58_000_000)  # within the ratio of a bomb
    inner = packed(*[(f"{number}.txt", filler) for number in range(3)])
    members = unpacking(packed(*[(f"{number}.zip", inner) for number in range(3)]))
    assert [name.rpartition("/")[0] for name in contents_of(members)] == ["a.zip/0.zip"] * 3 + ["a.zip/1.zip"] * 3
    assert [member.problem.partition(":")[0] for member in members if not member.path] == [
        "'a.zip/2.zip' is too much, with what it was packed with"
    ]


def contents_of(members: list[Member]) -> list[str]:
    """Names of those that could be had."""
    return [member.name for member in members if member.path]


def test_a_full_disk_is_no_damage_of_the_zip(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    (tmp_path / "upload").write_bytes(packed(("notes.md", b"# Notes")))
    told = json.loads(answer({"path": str(tmp_path / "upload"), "name": "a.zip", "folder": str(tmp_path)}))
    assert told["full"] and "is full" in told["error"]


@pytest.mark.parametrize("over", [0, 1])
def test_the_bytes_of_zips_in_a_zip_count_together_to_the_last(tmp_path, monkeypatch, over):
    inner = packed(("x.txt", b"x" * 1_000))
    (tmp_path / "upload").write_bytes(packed(("one.zip", inner), ("two.zip", inner), ("y.txt", b"y")))
    monkeypatch.setattr("chatbot.parse.archive.MAX_UNPACKED", 2 * len(inner) + 2 * 1_000 + 1 - over)
    members = unpack_here(tmp_path / "upload", "a.zip", tmp_path)  # in this process, where the limit is another
    found = {member.name: member.problem.partition(":")[0] for member in members}
    if over:
        assert found.pop("a.zip/two.zip") == "'a.zip/two.zip' is too much, with what it was packed with"
    else:
        assert found.pop("a.zip/two.zip/x.txt") == ""
    assert found == {"a.zip/one.zip/x.txt": "", "a.zip/y.txt": ""}


def test_names_that_are_marked_as_utf_8_are_not_guessed_with_the_others(unpacking):
    unmarked = ["检索增强生成模型.txt", "文档问答说明与检索.txt"]
    content = packed(("naïve café ünïcode.txt", b"1"), *[("x" * len(n.encode("gb18030")), b"2") for n in unmarked[:1]],
                     *[("y" * len(n.encode("gb18030")), b"3") for n in unmarked[1:]])  # fmt: skip
    for letter, name in zip(b"xy", unmarked, strict=True):
        raw = name.encode("gb18030")
        content = content.replace(bytes([letter]) * len(raw), raw)
    names = ["naïve café ünïcode.txt", *unmarked]
    assert [member.name for member in unpacking(content)] == [f"a.zip/{name}" for name in names]


def test_a_document_that_is_a_zip_itself_stays_whole_in_a_zip(unpacking):
    document = packed(("word/document.xml", b"<a/>"), ("[Content_Types].xml", b"<Types/>"))
    assert contents(unpacking(packed(("a.docx", document), ("b.txt", b"B")))) == {
        "a.zip/a.docx": document,
        "a.zip/b.txt": b"B",
    }
