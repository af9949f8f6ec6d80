"""What clients and workers both do with runs: start them, move them on, cancel them, tell where they stand."""
