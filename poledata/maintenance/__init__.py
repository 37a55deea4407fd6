"""What is archived is looked after: verify, repair, restore, rebuild the database."""
