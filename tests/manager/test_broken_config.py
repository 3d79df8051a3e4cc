"""A configuration that is being edited, or is lost, does not end the watch over what runs."""

import pytest

from tests.support.install import Install


@pytest.mark.parametrize("text", ["", '{"model": "org/tiny', '{"model": "org/tiny-chat", "bogus": 1}', None])
def test_a_pass_with_a_broken_configuration_goes_by_the_last_good_one(
    install: Install, text: str | None
) -> None:
    install.write(runtime_seconds=600)
    pod = install.passes_until("ready")["pod_id"]
    if text is None:
        install.path.unlink()
    else:
        install.path.write_text(text)
    told = install.manage().expect(78)
    assert "last good configuration" in told.err
    assert [p["id"] for p in install.sim.alive()] == [pod]
    install.sim.advance(700)
    install.manage().expect(78)
    assert install.sim.alive() == [], "the deadline is carried out all the same"


def test_a_first_pass_with_a_broken_configuration_does_nothing(install: Install) -> None:
    install.path.write_text("{")
    install.manage().expect(78)
    assert install.sim.requests() == []
