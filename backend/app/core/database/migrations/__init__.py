"""How the schema comes to be: one file a step, oldest first."""
