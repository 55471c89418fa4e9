"""What environments do wrong: named in errors, refused, or answered by a restart."""
