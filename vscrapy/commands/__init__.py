"""The command line's verbs, one file each, with ``run(argv)`` that returns the exit code."""
