"""What every floor may use and what knows nothing of networks: files, records, progress, the machine."""
