"""Policies as files that act without this library: ONNX, PyTorch's pt2 and C.

| file | what |
|---|---|
| `ports.py` | names, shapes and dtypes of what goes in and comes out |
| `step.py` | the step that is exported, as a module |
| `masks.py` | action masks as tensors |
| `onnx.py`, `pt2.py`, `c/` | the formats: write a file, run one |
| `parity.py` | whether a file acts as its policy does |
| `through_file.py` | a policy whose steps a file takes, to evaluate it |
"""

from xlstm_rl.export.policy import FORMATS as FORMATS
from xlstm_rl.export.policy import export_policy as export_policy
from xlstm_rl.export.through_file import through_file as through_file
