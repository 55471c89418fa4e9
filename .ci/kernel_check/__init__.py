"""The parts of check_kernels.py: what is launched, how it is compiled, which tiles were met."""
