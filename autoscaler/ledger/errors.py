"""What can go wrong with the ledger, in words an operator can act on.

No message here ever holds the database's address with its password: see ``database.py``, where they are made.
"""


class LedgerError(Exception):
    """Anything the ledger could not do. Unless a subclass says otherwise, nothing was written."""


class NotFound(LedgerError):
    """There is no such purchase or override."""


class LedgerUnavailable(LedgerError):
    """The database cannot be read or written, or did not confirm a commit, which may then have happened or not."""

    def __init__(self, why: str, mend: str) -> None:
        super().__init__(f"{why}; {mend}")
        self.why = why
        self.mend = mend


class LedgerMissing(LedgerUnavailable):
    """There is no ledger yet where one was to be looked at; whoever only looks does not begin one."""


class LedgerOutdated(LedgerUnavailable):
    """The database was written by an older program, and nobody has brought it up to date yet."""


class LedgerTooNew(LedgerError):
    """The database was written by a newer program, whose rows this one might misread."""
