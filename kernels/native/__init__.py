"""The CPU backend in C: compiled when the package is installed, called through ctypes."""
