"""A reward's module with a mistake."""

raise ZeroDivisionError("mistake")
