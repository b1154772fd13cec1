"""The commands. Results go to standard output, the rest to standard error; an error is one line and exit 1."""

from chatbot.cli.arguments import main, parser

__all__ = ["main", "parser"]
