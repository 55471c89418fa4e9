"""What the kernels are meant to reach, held against the rows of a run."""

from typing import NamedTuple

from gpu.measure import Row

FLOORS = {"mlstm": 3.0, "mlstm_step": 1.5, "slstm_step": 1.5, "conv_step": 1.5}
RESETS = 0.05
LARGE_STEP = 4096  # the batch size at which a step is held to its floor
HELD_TO_RIVALS = ("mlstm_kernels", "flashrnn", "torchrl lstm, resets")
ERRORS = {"bfloat16": 5e-2, "float32": 1e-3}
TF32_ERROR = 5e-2  # three digits in each product, and they add up over a sequence


class Verdict(NamedTuple):
    """An aim at one case: what was reached, what is asked for, and whether it is met."""

    case: str
    aim: str
    value: float
    bound: float
    met: bool


def judge(row: Row) -> list[Verdict]:
    """Every aim that applies to a row and can be judged: a rival that did not run is none."""
    case, op = row["case"], row["op"]
    if op == "policy_step":
        return []  # its time is reported, nothing is asked of it
    if "triton, resets" not in row.get("contenders", {}):
        return [Verdict(case, "our kernel runs", 0.0, 1.0, False)]
    verdicts = []

    def at_most(aim: str, value: float, bound: float) -> None:
        verdicts.append(Verdict(case, aim, value, bound, value <= bound))

    for name, error in row["errors"].items():
        bound = TF32_ERROR if "tf32" in name else ERRORS[row["dtype"]]
        at_most(f"error of {name}", error, bound)
    if op in FLOORS and ("step" not in op or row["shape"]["B"] >= LARGE_STEP):
        ratio = row["contenders"]["triton, resets"]["ratio_to_floor"]
        at_most("times the floor", ratio, FLOORS[op])
    if op == "mlstm" and "cost of resets" in row["ratios"]:
        at_most("cost of resets", row["ratios"]["cost of resets"], RESETS)
    for pair, ratio in row["ratios"].items():
        if pair.split(" / ")[0] in HELD_TO_RIVALS:
            verdicts.append(Verdict(case, f"{pair}, at least", ratio, 1.0, ratio >= 1.0))
    return verdicts
