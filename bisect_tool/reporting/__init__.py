"""Records and analysis to markdown, CSV and JSON. Pure as well."""
