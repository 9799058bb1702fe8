"""What watches the outside: git, data, alerts."""
