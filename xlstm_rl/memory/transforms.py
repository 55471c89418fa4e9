"""Whether somebody watches each operation."""

import torch

from xlstm_rl.kernels.autograd import transforming


def spelt_out() -> bool:
    """Return whether a memory has to run in plain operations that look at no number.

    So it is under the transforms of `torch.func`, and in an export.
    """
    return transforming() or torch.compiler.is_exporting()
