"""The command line, files, checkpoints, the shipped weights and several processes. May import everything."""
