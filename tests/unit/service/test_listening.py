"""The socket that the service listens on."""

from __future__ import annotations

import pytest

from drdecr.errors import ResourceError
from service.process import listen


@pytest.mark.parametrize("host", ["0.0.0..0", "x" * 70, "no.such.host.invalid"])
def test_host_that_has_no_address_is_named(host: str) -> None:
    with pytest.raises(ResourceError, match=r"has no address .*check --host"):
        listen(host, 0)
