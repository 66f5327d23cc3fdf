# syntax=docker/dockerfile:1
# Built in one stage and run in another, so that pip, its cache and any compiler stay out of what is shipped.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_CACHE_DIR=/var/cache/pip
WORKDIR /src
RUN python -m venv /opt/headwater
# The dependencies have their own layer: a change of our code does not install them again.
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['telemetry'], sep='\n')" > requirements.txt \
    && /opt/headwater/bin/pip install -c constraints.txt -r requirements.txt
COPY . .
RUN /opt/headwater/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
# The embedded database is left out: in a container the database is another container. Nothing is written but /data and
# /tmp, so the rest may be mounted read-only.
ENV PATH=/opt/headwater/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEADWATER_HOST=0.0.0.0 \
    HEADWATER_PORT=8000 \
    HEADWATER_DATA_DIR=/data
RUN useradd --system --uid 10001 --home-dir /app --create-home headwater \
    && install -d -o headwater /data
COPY --from=build /opt/headwater /opt/headwater
COPY main.py deploy/healthcheck.py /app/
WORKDIR /app
USER headwater
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-I", "healthcheck.py", "/health/live"]
CMD ["python", "main.py", "serve"]
