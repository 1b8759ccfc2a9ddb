"""PostgreSQL, the truth: its tables, how to reach it, and how its schema comes to be."""
