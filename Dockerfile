# Serves one version of any model; the version is mounted, or fetched when the container starts.
#
#   make image BASE=python:3.11-slim-bookworm@sha256:...
#   docker run --read-only --tmpfs /tmp -p 5001:5001 -v /path/to/version:/model:ro \
#     -e MLOPS_BUNDLE=/model -e MLOPS_PRIMARY_KEY -e MLOPS_SECONDARY_KEY mlops-serving
#
# Everything that can be set, as variables too: docker run mlops-serving --help

# A tag is moved, a digest is not; there is no default, for it would grow old.
ARG BASE

# hadolint ignore=DL3006  # the digest is asked for below
FROM ${BASE} AS packages
ARG BASE
RUN case "$BASE" in *@sha256:*) ;; *) \
      echo "BASE must name a digest, NAME@sha256:..., found '$BASE'" >&2; exit 1 ;; esac
# false leaves out scikit-learn and pandas: for versions that are served from ONNX alone.
ARG PICKLE=true
# true adds what checks signatures: for MLOPS_PUBLIC_KEY.
ARG SIGNING=false
# true adds what follows a generation in blob storage: for MLOPS_GENERATION_URL.
ARG AZURE=false
COPY docker/ /locks/
RUN python -m venv --without-pip /opt/mlops \
 && set -- -r /locks/serving.lock \
 && if [ "$PICKLE" = true ]; then set -- "$@" -r /locks/pickle.lock; fi \
 && if [ "$SIGNING" = true ]; then set -- "$@" -r /locks/signing.lock; fi \
 && if [ "$AZURE" = true ]; then set -- "$@" -r /locks/azure.lock; fi \
 && python -m pip --python /opt/mlops/bin/python install --no-cache-dir --no-compile \
      --disable-pip-version-check --require-hashes --only-binary :all: "$@"
COPY mlops_assets/__init__.py mlops_assets/files.py /opt/mlops/app/mlops_assets/
COPY mlops_assets/scoring/ /opt/mlops/app/mlops_assets/scoring/
# Byte code cannot be written later, and without it each start takes three times as long.
RUN /opt/mlops/bin/python -m compileall -q /opt/mlops

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=packages /opt/mlops /opt/mlops
ENV PATH=/opt/mlops/bin:$PATH \
    PYTHONPATH=/opt/mlops/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLOPS_HOST=0.0.0.0 \
    MLOPS_PORT=5001
# A number: Kubernetes then sees that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 5001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s \
  CMD ["python", "-P", "-m", "mlops_assets.scoring.health"]
ENTRYPOINT ["python", "-P", "-m", "mlops_assets.scoring"]
