"""Requests and answers, kept: taken by the workers, written by a process of its own.

A worker hands on what it answered through a socket and never waits for it; the capture process
decodes it, leaves out what is not to be kept, and writes Parquet files. Only that process imports
pyarrow.
"""
