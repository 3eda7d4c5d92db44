"""The command line; `linkedout_edge.cli.main.main` is the entry point."""
