"""The paper's claims, re-tested: each is a file of what it says and of the tests that decide it."""
