"""Files of weights and settings: headers, JSON, downloads, and the table of what is published."""
