"""The state of the archive: facts, and the text, the page and the metrics made from them."""
