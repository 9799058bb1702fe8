"""A server for Azure's host names, for tests and demos. Start reading at server.py."""
