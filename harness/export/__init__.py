"""The catalogue for other tools and for people: tables as files, alerts as a page."""
