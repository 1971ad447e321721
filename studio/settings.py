"""The only reader of the environment."""

import os
import re
from pathlib import Path

HOME_VARIABLE = "STUDIO_HOME"
_ROOTS_VARIABLE = "STUDIO_MODEL_ROOTS"


def studio_home() -> Path:
    """Find the folder where everything a person makes is kept.

    Returns:
        STUDIO_HOME, or `.studio` in the user's own folder.
    """
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".studio").expanduser().absolute()


def model_roots() -> tuple[Path, ...]:
    """Find the folders below which a person keeps model folders.

    Returns:
        The absolute folders of STUDIO_MODEL_ROOTS, separated as in PATH; default: none.
    """
    parts = os.environ.get(_ROOTS_VARIABLE, "").split(os.pathsep)
    return tuple(
        dict.fromkeys(
            Path(os.path.expanduser(part.strip())).absolute() for part in parts if part.strip()
        )
    )


_DEFAULTS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",  # a token is used only where one is given
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    # Threads that wait for each other look so often before they sleep, some tenths of a
    # millisecond: asleep at once, training takes nearly twice as long; at libgomp's own 300,000
    # two programs on the same cores take four times as long as they need.
    "GOMP_SPINCOUNT": "10000",
    # Memory in large pages, where the system lets programs ask for them: a small model trains 1.05
    # to 1.15 times as fast. glibc reads it when a program begins, and others leave it alone.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# What a child needs to find programs, folders, devices and the network; no token, no secret.
_PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_DISABLE_XET", "XDG_CACHE_HOME",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    HOME_VARIABLE,
)  # fmt: skip
_PLACES = {
    "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR",
    HOME_VARIABLE,
}  # fmt: skip
# Another Hub has no Xet store, and the library would not do without.
_HAS_XET = re.compile(r"(https://(huggingface|hf)\.co/?)?")
_PASSED_ON_FAMILIES = ("LC_", "OMP_", "MKL_")


def prepare_environment() -> None:
    """Set what libraries read when they are imported; what a person set stays."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def hub_token() -> str:
    """Read the token that the ecosystem keeps in HF_TOKEN; handed on by pipe alone.

    Returns:
        The token, or "".
    """
    return os.environ.get("HF_TOKEN", "").strip()


def page_port() -> int:
    """Read where Gradio pages usually listen.

    Returns:
        GRADIO_SERVER_PORT, or 7860.
    """
    text = os.environ.get("GRADIO_SERVER_PORT", "")
    return int(text) if text.isdecimal() and 1024 <= int(text) < 65_536 else 7860


def child_environment(*, offline: bool) -> dict[str, str]:
    """Choose what a child process sees of the environment.

    Args:
        offline: whether the Hub must not be asked: bases come from this machine.

    Returns:
        Few variables, by name, and none that may hold a token.
    """
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name in _DEFAULTS or name.startswith(_PASSED_ON_FAMILIES)
    }
    for name in _PLACES & passed_on.keys():  # the child stands in another folder
        passed_on[name] = str(Path(passed_on[name]).expanduser().absolute())
    if not _HAS_XET.fullmatch(passed_on.get("HF_ENDPOINT", "")):
        passed_on.setdefault("HF_HUB_DISABLE_XET", "1")
    return {**_DEFAULTS, **passed_on, **({"HF_HUB_OFFLINE": "1"} if offline else {})}
