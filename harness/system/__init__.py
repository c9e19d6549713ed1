"""What a process needs of the machine: memory, workers, hashes of files, logs, progress."""
