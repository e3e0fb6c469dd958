"""What every kernel stands on: index arithmetic and accumulation rules. Imports only the standard library."""
