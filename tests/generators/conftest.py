"""Scripts that recorded arrays from PyTorch are no tests."""

collect_ignore_glob = ["record_*.py"]
