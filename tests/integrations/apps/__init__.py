"""The same small publishing API for each framework, with the layers of a real one around the guard."""
