"""A publishing API that really circulates, and the sites that receive: see ``app`` and ``sites``."""
