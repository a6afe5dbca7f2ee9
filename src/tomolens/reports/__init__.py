"""A result as HTML, PNG and figures."""
