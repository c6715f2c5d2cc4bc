"""Tables, figures and HTML pages, for whoever has results to show."""
