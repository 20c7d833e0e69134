"""What a run has learnt, as a file, a program or a page that needs no run."""
