"""A state file that parses but says nonsense is rebuilt from the provider's list, like one that does not parse."""

import pytest

from tests.manager.passes import alive, edit, until
from tests.support.install import Install


@pytest.mark.parametrize("odd", [{"deadline": "soon"}, {"deadline": 1e300}, {"crashes": None}])
def test_an_odd_record_is_rebuilt(install: Install, odd: dict[str, object]) -> None:
    until(install, "ready")
    pods = alive(install)
    edit(install, **odd)
    assert "damaged" in install.manage("status").expect().out
    done = install.manage()
    assert "Traceback" not in done.err
    assert "rebuilt" in done.out
    assert alive(install) == pods
    until(install, "ready")
