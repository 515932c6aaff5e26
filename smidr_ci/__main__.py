"""`python -m smidr_ci` is `smidr`."""

from smidr_ci.cli.main import main

main()
