"""Tasks that need memory, and the vector environments that compute many episodes at once."""
