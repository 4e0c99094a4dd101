"""Long runs that no test run includes; each prints its figures."""
