import pytest

from templates.errors import DataError
from templates.hub_address import check_hub_address


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co",
        "https://mirror.example/x",
        "http://127.0.0.1:9",
        "http://[::1]:9/a",
    ],
)
def test_safe_addresses(address: str) -> None:
    check_hub_address(address, DataError)


@pytest.mark.parametrize(
    "address",
    ["http://hub.example.org", "ftp://127.0.0.1", "http://127.0.0.1.evil.org", "http://[", "",
     "https://", "huggingface.co", "http://localhost@evil.org"],
    ids=range(8),
)  # fmt: skip
def test_addresses_that_get_no_token(address: str) -> None:
    with pytest.raises(DataError, match=r"not a safe one.*HF_ENDPOINT begin with https"):
        check_hub_address(address, DataError)
