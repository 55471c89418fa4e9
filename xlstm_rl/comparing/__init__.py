"""Several memories, several seeds, one table: what `xlstm-rl compare` does."""
