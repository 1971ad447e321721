"""The only reader of the environment."""

import os
from pathlib import Path

HOME_VARIABLE = "STUDIO_HOME"


def studio_home() -> Path:
    """Find the folder where everything a person makes is kept.

    Returns:
        STUDIO_HOME, or `.studio` in the user's own folder.
    """
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".studio").expanduser()


def prepare_environment() -> None:
    """Set what libraries read when they are imported; what a person set stays."""
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),  # a token is used only where one is given
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("OMP_WAIT_POLICY", "PASSIVE"),  # waiting threads leave the cores to other programs
    ):
        os.environ.setdefault(name, value)
