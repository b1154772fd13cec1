"""`python run.py ...` is the same as the installed command `marginalia ...`."""

from chatbot.cli import main

if __name__ == "__main__":  # `bench` starts processes that import this file
    raise SystemExit(main())
