"""`python -m agapo`."""

from agapo.cli import main

main()
