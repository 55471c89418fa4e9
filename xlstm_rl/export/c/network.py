"""Encoder and heads as statements of C."""

from typing import Any

from torch import Tensor, nn

from xlstm_rl.export.c.program import Program, Vector, number, refuse
from xlstm_rl.export.c.reading import Reader
from xlstm_rl.policy.activations import Tanh
from xlstm_rl.policy.encoders.encoder import DiscreteEncoder, JoinedEncoder, MultiDiscreteEncoder
from xlstm_rl.policy.encoders.images import ImageEncoder, Residual
from xlstm_rl.policy.encoders.own import OwnEncoder, WithAuxiliary

UNITS: dict[type[nn.Module], str] = {
    Tanh: "UNIT_TANH",
    nn.Tanh: "UNIT_TANH",
    nn.ReLU: "UNIT_RELU",
    nn.SiLU: "UNIT_SILU",
}


def encode(program: Program, encoder: nn.Module, reader: Reader) -> Vector:
    """Write what an encoder does and return its output."""
    parts = list(encoder) if isinstance(encoder, nn.Sequential) else [encoder]
    first, *rest = parts
    if isinstance(first, OwnEncoder | WithAuxiliary):
        refuse("an encoder of your own (policy.encoder)")
    if isinstance(first, JoinedEncoder):
        x = _joined(program, first, reader)
    else:
        x = _leaf(program, first, reader, reader.only)
    return run_layers(program, rest, x)


def _joined(program: Program, encoder: JoinedEncoder, reader: Reader) -> Vector:
    found = [
        _leaf(program, one, reader, name)
        for name, one in zip(encoder.names, encoder.encoders, strict=True)
    ]
    first, *others = found
    for other in others:
        program.say(f"add({first.size}, {other.at}, {first.at});")
    scale = number(float(encoder.scale))
    program.say(f"for (int64_t i = 0; i < {first.size}; i++) ({first.at})[i] *= {scale};")
    return first


def _leaf(program: Program, encoder: nn.Module, reader: Reader, name: str) -> Vector:
    """Write the encoder of one leaf, or of what stands beside the observation."""
    if type(encoder) is nn.Linear:
        return run_layers(program, [encoder], reader.numbers(name))
    if type(encoder) is DiscreteEncoder:
        weight = encoder.embedding.weight
        return reader.embedded(name, [weight.shape[0]], weight)
    if type(encoder) is MultiDiscreteEncoder:
        space: Any = reader.leaves[name].space
        return reader.embedded(name, space.nvec.ravel().tolist(), encoder.embedding.weight)
    if type(encoder) is ImageEncoder:
        return _image(program, encoder, reader.pixels(name))
    refuse(f"the encoder {type(encoder).__name__}")


def run_layers(program: Program, modules: list[nn.Module], x: Vector) -> Vector:
    """Write linear layers and activations."""
    at = 0
    while at < len(modules):
        module = modules[at]
        behind = type(modules[at + 1]) if at + 1 < len(modules) else None
        if isinstance(module, nn.Sequential):
            x = run_layers(program, list(module), x)
        elif type(module) is nn.Linear:
            unit = UNITS.get(behind, "UNIT_NONE") if behind else "UNIT_NONE"
            x = linear(program, module.weight, module.bias, unit, x)
            at += unit != "UNIT_NONE"
        elif type(module) in UNITS:
            program.say(f"apply_unit({x.size}, {UNITS[type(module)]}, {x.at});")
        elif type(module) is not nn.Identity:
            refuse(f"a module {type(module).__name__}")
        at += 1
    return x


def linear(program: Program, weight: Tensor, bias: Tensor | None, unit: str, x: Vector) -> Vector:
    """Write one linear layer with its activation."""
    outputs, inputs = weight.shape
    y = program.vector(outputs)
    matrix = f"(matrix){program.matrix(weight)}"
    program.say(
        f"linear({inputs}, {outputs}, {matrix}, {program.floats(bias)}, {unit}, {x.at}, {y.at});"
    )
    return y


def _image(program: Program, encoder: ImageEncoder, pixels: str) -> Vector:
    """Write an image encoder; images are `[height, width, channels]` here."""
    program.include("images.h")
    last = encoder.channels_last
    shape = (
        encoder.shape if last or len(encoder.shape) < 3 else (*encoder.shape[1:], encoder.shape[0])
    )
    height, width, channels = (*shape, 1)[:3]
    x = program.vector(height * width * channels)
    program.say(
        f"read_pixels({height}, {width}, {channels}, {int(last)}, {number(encoder.scale)}, "
        f"{pixels}, {x.at});"
    )
    image = _Image(program, x, height, width, channels)
    for layer in encoder.convolutions:
        image.run(layer)
    first, *rest = encoder.projection
    assert isinstance(first, nn.Linear)
    weight = first.weight.view(-1, image.channels, image.height * image.width)
    flat = weight.transpose(1, 2).flatten(1)  # channels last
    unit = UNITS.get(type(rest[0]), "UNIT_NONE") if rest else "UNIT_NONE"
    y = linear(program, flat, first.bias, unit, image.x)
    return run_layers(program, rest[unit != "UNIT_NONE" :], y)


class _Image:
    """An image on its way through convolutions."""

    def __init__(self, program: Program, x: Vector, height: int, width: int, channels: int) -> None:
        self.program, self.x = program, x
        self.height, self.width, self.channels = height, width, channels

    def run(self, layer: nn.Module) -> None:
        """Write one layer."""
        if type(layer) is nn.Conv2d:
            self._convolve(layer)
        elif type(layer) is nn.ReLU:
            self.program.say(f"apply_unit({self.x.size}, UNIT_RELU, {self.x.at});")
        elif type(layer) is nn.MaxPool2d:
            self._move("pool({h}, {w}, {c}, {x}, {y});", -(-self.height // 2), -(-self.width // 2))
        elif type(layer) is Residual:
            before = self.x
            kept = self.program.vector(before.size)
            self.program.say(f"memcpy({kept.at}, {before.at}, {before.size} * sizeof(float));")
            for one in layer.branch:
                self.run(one)
            self.program.say(f"add({kept.size}, {kept.at}, {self.x.at});")
        elif type(layer) is not nn.Flatten:
            refuse(f"a module {type(layer).__name__} in an image encoder")

    def _convolve(self, layer: nn.Conv2d) -> None:
        (side, _), (stride, _), pad = layer.kernel_size, layer.stride, int(layer.padding[0])
        rows, columns = ((n + 2 * pad - side) // stride + 1 for n in (self.height, self.width))
        matrix = self.program.matrix(layer.weight.permute(0, 2, 3, 1).flatten(1))
        bias = self.program.floats(layer.bias)
        patch = self.program.shared(side * side * self.channels)
        self._move(
            f"convolve({{h}}, {{w}}, {{c}}, {layer.out_channels}, {side}, {stride}, {pad}, "
            f"(matrix){matrix.replace('{', '{{').replace('}', '}}')}, {bias}, {{x}}, {{y}}, "
            f"{patch.at});",
            rows,
            columns,
            layer.out_channels,
        )

    def _move(self, call: str, rows: int, columns: int, channels: int | None = None) -> None:
        out = channels or self.channels
        y = self.program.vector(rows * columns * out)
        sizes = {"h": self.height, "w": self.width, "c": self.channels}
        self.program.say(call.format(**sizes, x=self.x.at, y=y.at))
        self.x, self.height, self.width, self.channels = y, rows, columns, out
