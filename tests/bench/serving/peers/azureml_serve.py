"""Azure's inference server on 127.0.0.1: it has no option for the address, and binds them all."""

from azureml_inference_server_http import amlserver

amlserver.DEFAULT_HOST = "127.0.0.1"
amlserver.run()
