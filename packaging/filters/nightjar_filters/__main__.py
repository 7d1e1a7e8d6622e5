"""`python3 -m nightjar_filters`: the command without having been installed."""

from .command import main

main()
