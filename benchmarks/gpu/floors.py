"""What has to be moved and computed, and the least time that takes on a device.

The floors hold for every algorithm: inputs and outputs of each pass once, nothing that is kept
from forward to backward or from chunk to chunk, and only the products that no chunk length saves.
A multiply-add counts as two operations. `size` is the number of bytes of an input's element;
gates of the mLSTM have it too, states always take 4. A reset is one byte.
"""

from dataclasses import asdict, dataclass

FLOAT32 = 4


@dataclass(frozen=True)
class Work:
    """Bytes that must be moved and operations that must be done by one run."""

    bytes: int
    operations: int


@dataclass(frozen=True)
class Rates:
    """What this device does, measured in this run.

    Args:
        copy: bytes per second of a large copy, read and written ones together.
        bfloat16: operations per second of a large matrix product of bfloat16.
        tf32: the same of float32 rounded to TF32.
        float32: the same of float32 to its full accuracy: the faster of the library's own product
            and of three TF32 products.
        launch: seconds that the smallest kernel takes on the device.
    """

    copy: float
    bfloat16: float
    tf32: float
    float32: float
    launch: float

    def floor(self, work: Work, kind: str) -> float:
        """Seconds: of the bytes, of the operations or of one launch, whichever is longest."""
        rate = asdict(self)[kind]
        return max(work.bytes / self.copy, work.operations / rate, self.launch)


def mlstm(B: int, T: int, H: int, K: int, V: int, size: int) -> Work:
    """Forward and backward of a sequence.

    Forward reads q, k, v, i, f and writes h. Backward reads those five and dh, and writes five
    gradients. Each step multiplies twice with the state forward (write, read), and five times
    backward (write again, its gradient written, read for dq, dk, dv). Products inside a chunk
    come on top and depend on its length.
    """
    forward = (2 * K + 2 * V + 2) * size + 1
    backward = (2 * K + 2 * V + 2) * size + 1 + (2 * K + V + 2) * size
    return Work(B * T * (H * (forward + backward - 2) + 2), B * T * H * 7 * 2 * K * V)


def slstm(B: int, T: int, H: int, D: int, size: int) -> Work:
    """Forward and backward of a sequence.

    Forward reads x (4 D) and writes h (D); backward reads both and dh and writes dx (4 D). R is
    read twice, dR written in the same type. Each step multiplies with R forward, with its
    transpose backward, and adds to dR. A third floor is not in here: 2 T steps wait for each
    other.
    """
    per_step = H * D * (4 + 1 + 4 + 1 + 1 + 4) * size + 2
    weights = 3 * (4 * H * D * D + 4 * H * D) * size
    return Work(B * T * per_step + weights, B * T * 3 * 2 * 4 * H * D * D)


def mlstm_step(B: int, H: int, K: int, V: int, size: int) -> Work:
    """One step in place: q, k, v, i, f in, h out, the state read and written."""
    state = mlstm_state(B, H, K, V)
    return Work(2 * state + B * H * (2 * K + 2 * V + 2) * size + B, B * H * 2 * 2 * K * V)


def mlstm_state(B: int, H: int, K: int, V: int) -> int:
    """Bytes of C, n and m."""
    return B * H * (K * V + K + 1) * FLOAT32


def slstm_step(B: int, H: int, D: int, size: int) -> Work:
    """One step in place: x (4 D) in, h (D) out, the state read and written, R and b read."""
    weights = (4 * H * D * D + 4 * H * D) * size
    io = B * H * D * 5 * size + B
    return Work(2 * slstm_state(B, H, D) + io + weights, B * 2 * 4 * H * D * D)


def slstm_state(B: int, H: int, D: int) -> int:
    """Bytes of h, c, n and m."""
    return B * H * D * 4 * FLOAT32


def conv_step(B: int, C: int, W: int, size: int) -> Work:
    """One step in place: x in, y out, the state read and written, taps and bias read."""
    io = B * C * 2 * size + B + C * (W + 1) * size
    return Work(2 * conv_state(B, C, W, size) + io, B * C * 2 * W)


def conv_state(B: int, C: int, W: int, size: int) -> int:
    """Bytes of the last W - 1 inputs, in the dtype of the inputs."""
    return B * C * (W - 1) * size
