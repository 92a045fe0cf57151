"""``peers``: see ``command``; nothing is imported here, since half of this package runs in another environment."""
