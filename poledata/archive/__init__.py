"""One pass: from a file in the buffer to two proved copies, and the removal."""
