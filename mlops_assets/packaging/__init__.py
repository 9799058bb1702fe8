"""A version as what an application takes in: a wheel, and the model's file with its schema."""
