"""What the tests of the pages share with those of what is released: the wheel that a reader installs."""

from tests.installing.conftest import distributions, wheel

__all__ = ["distributions", "wheel"]
