"""``make bench-micro``: what each step of a decision costs by itself."""
