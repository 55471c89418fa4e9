"""What `kernels_gpu.py` is made of: floors, timing, cases, rivals, aims, and the report."""
