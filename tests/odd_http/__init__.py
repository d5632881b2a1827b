"""Ways of a web server to misbehave, more than two hundred: see `tests/campaigns/http_behaviours.py`."""
