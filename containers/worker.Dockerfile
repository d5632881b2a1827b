# The image of Dataflow's workers: Beam's own, and in it this package with what a data worker needs.
#
#   docker build -f containers/worker.Dockerfile -t IMAGE .
#
# ffmpeg (imageio-ffmpeg) and the JavaScript runtime (deno) are in wheels, in the versions of requirements.lock, so that
# nothing comes from the distribution and every worker writes the bytes that the launcher would.
ARG PYTHON=3.11
ARG BEAM=2.77.0
FROM apache/beam_python${PYTHON}_sdk:${BEAM}

WORKDIR /opt/mbt
COPY requirements.lock pyproject.toml setup.py README.md LICENSE ./
COPY schemas ./schemas
COPY pipeline ./pipeline
COPY model ./model
COPY train ./train
# The base installation without extras: no TensorFlow, no JAX. The lock is a constraint, for it pins those too.
RUN pip install --no-cache-dir --constraint requirements.lock . && pip check
# A worker that lacks one of them would fail every clip: the build fails instead.
COPY containers/check_worker.py ./
RUN python check_worker.py requirements.lock

# ENTRYPOINT stays /opt/apache/beam/boot, which starts the SDK's processes.
WORKDIR /
