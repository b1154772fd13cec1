"""`python run.py ...` is the same as the installed command `marginalia ...`."""

from chatbot.cli import main

raise SystemExit(main())
