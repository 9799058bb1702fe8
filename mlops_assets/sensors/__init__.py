"""What watches the outside: git, the data storage, and what people must be told."""

#: Least time between two ticks of a sensor. Dagster's daemon looks every 5 seconds; sensors that
#: asked for 5 would now and then come a moment too early, and wait for the round after.
INTERVAL_SECONDS = 3
