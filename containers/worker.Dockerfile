# The image of Dataflow's workers: Beam's own, and in it this package with what a data worker needs.
#
#   make image IMAGE=NAME:TAG
#
# That asks for the digest of Beam's image and gives it as BASE, so that the tag cannot come to mean another image
# between two builds. ffmpeg (imageio-ffmpeg) and the JavaScript runtime (deno) are in wheels, in the versions and with
# the hashes of worker.lock, so that nothing comes from the distribution and every worker writes the launcher's bytes.
ARG BASE
FROM ${BASE}

WORKDIR /opt/mbt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY schemas ./schemas
COPY pipeline ./pipeline
COPY model ./model
COPY train ./train
COPY containers/worker.lock containers/check_worker.py ./
# The base installation without extras: no TensorFlow, no JAX. setuptools is in the lock, so the package needs no other.
RUN pip install --no-cache-dir --require-hashes --requirement worker.lock && \
    pip install --no-cache-dir --no-deps --no-build-isolation . && pip check
# A worker that lacks one of them would fail every clip: the build fails instead.
RUN python check_worker.py worker.lock

# Media are untrusted: what decodes them owns nothing here but what Beam's boot writes: a virtual environment in
# /opt/apache/beam-venv, all else below /tmp or where the runner says.
RUN useradd --uid 10001 --create-home beam && install -d -o beam -m 0750 /opt/apache/beam-venv
USER 10001
# ENTRYPOINT stays /opt/apache/beam/boot, which starts the SDK's processes.
WORKDIR /home/beam
