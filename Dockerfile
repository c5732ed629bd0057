# Two stages over one base: the first has the means to build, the second only what runs.
# BASE is any image with Python 3.11 or later and, for the first stage, venv: Debian's own or python:3.x-slim.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/build.txt requirements/image.txt /src/requirements/
# The build tools stay in their own environment; nothing unlocked builds or runs anything.
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --require-hashes -r /src/requirements/build.txt \
 && /build/bin/pip wheel --quiet --require-hashes --no-build-isolation --no-deps \
        -w /wheels -r /src/requirements/image.txt \
 && python3 -m venv --without-pip /opt/autoscaler
COPY pyproject.toml README.md /src/
COPY autoscaler /src/autoscaler
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation -w /wheels /src \
 && /build/bin/pip --python /opt/autoscaler/bin/python install --quiet --no-deps --no-index /wheels/*.whl \
# Compiled once, here: the running container writes nothing beside its state.
 && /opt/autoscaler/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/autoscaler/lib

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="autoscaler" \
      org.opencontainers.image.description="Buys prepaid edge workers for ACK Edge clusters when their load needs them" \
      org.opencontainers.image.version="${VERSION}"

# A slim base ships the standard library without its compiled form.
RUN python3 -c "import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, \
        rx=re.compile('/(site-packages|dist-packages|test|tests|idlelib|tkinter|lib2to3)/'))" \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/autoscaler \
 && install -d /etc/autoscaler/policies

COPY --from=build /opt/autoscaler /opt/autoscaler

ENV PATH=/opt/autoscaler/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AUTOSCALER_POLICIES=/etc/autoscaler/policies \
    AUTOSCALER_LEDGER=sqlite:////var/lib/autoscaler/ledger.db \
    AUTOSCALER_LISTEN=0.0.0.0:8080

USER 10001:10001
WORKDIR /var/lib/autoscaler
VOLUME /var/lib/autoscaler
EXPOSE 8080

# Not urllib: a proxy in the environment would be asked for 127.0.0.1.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-ISc", \
    "import http.client, os; port = os.environ['AUTOSCALER_LISTEN'].rpartition(':')[2]; \
c = http.client.HTTPConnection('127.0.0.1', int(port), timeout=4); c.request('GET', '/healthz'); \
raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["autoscaler"]
CMD ["run"]
