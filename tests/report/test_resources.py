import pytest

from glowsim import resources
from glowsim.resources import KINDS, ResourceError, resource


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_folder_with_something_in_it(kind):
    assert any(resource(kind).iterdir())


def test_the_wheels_copy_wins_over_a_folder_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "glowsim")
    for place in ("scenarios", "glowsim/_bundled/scenarios"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.yaml").touch()
    assert resource("scenarios", "a.yaml") == tmp_path / "glowsim" / "_bundled" / "scenarios" / "a.yaml"


def test_what_is_not_there_is_named_with_what_is(tmp_path, monkeypatch):
    with pytest.raises(ResourceError, match=r"'poems'.*scenarios, notebooks"):
        resource("poems")
    with pytest.raises(ResourceError, match=r"no 'nope\.css'.*style\.css"):
        resource("reports/templates", "nope.css")
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "glowsim")
    with pytest.raises(ResourceError, match="install glowsim again"):
        resource("scenarios")
