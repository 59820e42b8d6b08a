"""Whose turn it is. Each page has one request at work and at most one that waits; the newest counts."""

import threading


class Turns:
    """The requests of all pages. A page that scribbles never has a queue, and pages do not disturb each other.

    A newer request ends the older one of the same page. The one at work is not stopped here: it asks
    ``is_newest`` between two steps, so it can show its first picture before it makes room.
    """

    def __init__(self):
        self.changed = threading.Condition()
        self.newest: dict[str, object] = {}
        self.at_work: set[str] = set()  # pages

    def begin(self, page: str) -> object | None:
        """Wait for the page's turn. Returns a ticket, or None if a newer request came while we waited."""
        mine = object()
        with self.changed:
            self.newest[page] = mine
            self.changed.notify_all()
            while page in self.at_work and self.newest.get(page) is mine:
                self.changed.wait()
            if self.newest.get(page) is not mine:
                return None
            self.at_work.add(page)
        return mine

    def is_newest(self, page: str, ticket: object) -> bool:
        with self.changed:
            return self.newest.get(page) is ticket

    def end(self, page: str, ticket: object) -> None:
        with self.changed:
            self.at_work.discard(page)
            if self.newest.get(page) is ticket:
                del self.newest[page]
            self.changed.notify_all()

    def wait_for_all(self, seconds: float) -> None:
        """Wait until no request is at work."""
        with self.changed:
            self.changed.wait_for(lambda: not self.at_work, seconds)
