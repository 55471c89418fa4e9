"""The border to TorchRL: memories and policies as its modules. Nothing else imports it."""

from typing import TYPE_CHECKING

from xlstm_rl.lazy import lazy_names

if TYPE_CHECKING:
    from xlstm_rl.torchrl.module import XLSTMModule

__all__ = ["XLSTMModule"]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, __all__, ("module",))
