"""A memory outside of reinforcement learning: say what was seen some steps ago.

python examples/supervised_memory.py

Sequences `[B, T]` hold several episodes each; `reset` marks their first steps.
"""

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from xlstm_rl.memory import MemoryConfig, make_memory

SYMBOLS, WIDTH, DELAY = 4, 32, 5
BATCH, STEPS, UPDATES = 32, 40, 300


class Recall(nn.Module):
    """Symbols in, and at each step the logits of the symbol `DELAY` steps before."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(SYMBOLS, WIDTH)
        self.memory = make_memory(MemoryConfig(kind="xlstm", pattern="ms", width=WIDTH))
        self.decode = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, symbols: Tensor, reset: Tensor) -> Tensor:
        """Run sequences [B, T]."""
        features, _ = self.memory(self.encode(one_hot(symbols, SYMBOLS).float()), None, reset)
        logits: Tensor = self.decode(features)
        return logits

    def step(
        self, symbols: Tensor, state: TensorDict | None, reset: Tensor
    ) -> tuple[Tensor, TensorDict]:
        """Run one step [B]: the same numbers, and the state."""
        x = self.encode(one_hot(symbols, SYMBOLS).float())
        features, after = self.memory.step(x, state, reset)
        return self.decode(features), after


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return symbols, resets, and what is to be said; -100 where nothing is."""
    symbols = torch.randint(SYMBOLS, (BATCH, STEPS))
    reset = torch.rand(BATCH, STEPS) < 0.05
    reset[:, 0] = True
    began = torch.where(reset, torch.arange(STEPS), -1).cummax(1).values
    known = torch.arange(STEPS) - began >= DELAY  # the symbol belongs to the same episode
    return symbols, reset, symbols.roll(DELAY, 1).masked_fill(~known, -100)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Recall()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for update in range(UPDATES):
        symbols, reset, target = make_batch()
        logits = model(symbols, reset)
        loss = cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 50 == 0 or update == UPDATES - 1:
            asked = target >= 0
            right = (logits.argmax(-1) == target)[asked].float().mean()
            print(f"update {update:>3}: loss {loss:.3f}, right {right:.2f}", flush=True)

    state, one_by_one = None, []
    with torch.no_grad():
        for t in range(STEPS):
            said, state = model.step(symbols[:, t], state, reset[:, t])
            one_by_one.append(said)
        apart = (torch.stack(one_by_one, 1) - model(symbols, reset)).abs().max()
    print(f"steps and sequence differ by {apart:.1e}")
