"""Named assertions on alert packets: `check` judges one file, ours or anybody's."""

from harness.verify.alerts.assertion import ASSERTIONS
from harness.verify.alerts.check import Assertion, Check, check

__all__ = ["ASSERTIONS", "Assertion", "Check", "check"]
