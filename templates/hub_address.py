"""Where the Hub is, and whether a token may be sent there."""

from urllib.parse import urlsplit

from templates.errors import StudioError

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def check_hub_address(address: str, error: type[StudioError]) -> None:
    """Never send a token in the clear, but to this machine.

    Args:
        address: of the Hub, or of something on it.
        error: the kind of error to raise.

    Raises:
        StudioError: of that kind; the address is not an encrypted one.
    """
    try:
        parts = urlsplit(address)
        is_local = parts.scheme == "http" and parts.hostname in _THIS_MACHINE
        is_safe = bool(parts.hostname) and (parts.scheme == "https" or is_local)
    except ValueError:
        is_safe = False
    if not is_safe:
        raise error(
            "The address of the Hub is not a safe one, and the token would be readable on the way",
            where=address[:200],
            fix="Let HF_ENDPOINT begin with https://",
        )
