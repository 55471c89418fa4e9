"""What is known of W&B in this process: the run that is open, and whether there is a key."""

import netrc
import os
from typing import Any
from urllib.parse import urlparse


def wandb_run() -> Any:
    """Return the W&B run that is open in this process, or None."""
    import wandb

    return wandb.run


def has_wandb_key() -> bool:
    """Whether W&B can log in without asking: by environment, netrc or its settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    settings = wandb.setup().settings
    host = urlparse(settings.base_url).hostname or ""
    try:
        path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
        return bool(netrc.netrc(path).authenticators(host) or settings.api_key)
    except (OSError, netrc.NetrcParseError):
        return bool(settings.api_key)
