# gdd for CPUs, or with VARIANT=cuda for NVIDIA GPUs; docs/index.md has the commands.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
ARG VARIANT=cpu
RUN pip install uv
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY gdd gdd
RUN uv venv /opt/gdd
# PyPI's torch brings CUDA's libraries, some gigabytes; torch's own index has one without.
RUN case "$VARIANT" in \
      cpu) torch=--torch-backend=cpu ;; \
      cuda) torch= ;; \
      *) echo "VARIANT is $VARIANT, expected cpu or cuda" >&2; exit 1 ;; \
    esac; \
    uv pip install --python /opt/gdd $torch .

# The same Python, for that of /opt/gdd is a link to it; without uv and what it has fetched.
FROM ${PYTHON}
COPY --from=build /opt/gdd /opt/gdd
# With docker's --user it is somebody without a name or a home, whom libraries ask for both.
ENV PATH=/opt/gdd/bin:$PATH HOME=/tmp USER=gdd
RUN useradd gdd && install --directory --owner gdd /work
USER gdd
WORKDIR /work
COPY configs configs
CMD ["gdd", "doctor"]
