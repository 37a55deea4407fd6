"""How the archive stands: facts, and the text, page and numbers that are made of them."""
