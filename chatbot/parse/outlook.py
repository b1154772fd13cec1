"""Outlook's .msg: subject, people and date, then the plain text, else the HTML. Attachments are named, not read.

A text that Outlook stored as compressed RTF alone is not read, and the notice says so.
"""

from email.header import decode_header, make_header
from pathlib import Path

from oxmsg import Message

from chatbot.parse.mail import attached, head, undecorated
from chatbot.parse.web import whole
from chatbot.passage import Document, Page


def read(path: Path, name: str) -> Document:
    message = Message.load(str(path))
    recipients = (f"{each.name} <{each.email_address}>" for each in message.recipients if each.email_address)
    headers = [
        ("From", str(make_header(decode_header(message.sender or "")))),
        ("To", ", ".join(recipients)),
        ("Date", f"{message.sent_date:%Y-%m-%d %H:%M %Z}" if message.sent_date else ""),
    ]
    text = undecorated(message.body or "").strip() or whole(message.html_body or "")
    files = attached([file for each in message.attachments if (file := each.file_name)])
    notice = "; ".join(filter(None, ["" if text else "the message's text was not found", files]))
    return Document(name, "msg", (Page(f"{head(message.subject, headers)}\n\n{text}"),), notice)
