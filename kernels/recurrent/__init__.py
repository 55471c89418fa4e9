"""LSTM and GRU, to compare with: torch's own, and C where it runs."""
