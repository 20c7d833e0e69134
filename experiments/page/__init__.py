"""A run as one page that opens from the disk: pictures drawn ahead, scrubbers, tables."""
