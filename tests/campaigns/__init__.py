"""What the campaigns share: a shim that makes system calls fail, and passes that are forked."""
