"""Schemas of ops, put together from parts that several of them share."""


def schema(*arguments: str, outputs: int | None = None) -> str:
    """The schema of an op in torch's words.

    Args:
        arguments: such as ``"Tensor x, Tensor? reset"``.
        outputs: how many tensors it returns; None: a list of them.
    """
    returned = "Tensor[]" if outputs is None else f"({', '.join(['Tensor'] * outputs)})"
    return f"({', '.join(arguments)}) -> {returned}"
