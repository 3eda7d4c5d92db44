"""What the public methods return can be imported by name, and importing the package alone stays light."""

import subprocess
import sys

import pytest

import linkedout_edge


@pytest.mark.parametrize("name", linkedout_edge.__all__)
def test_every_public_name_is_there(name):
    value = getattr(linkedout_edge, name)
    assert getattr(value, "__name__", name).rpartition(".")[2] == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nothing"):
        linkedout_edge.Nothing  # noqa: B018


def test_importing_the_package_does_not_load_opencv():
    code = "import sys, linkedout_edge; print('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
