FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN python -m venv /opt/gateway && /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.11-slim
# Any user may keep its state here: compose runs the gateway as the one who owns the certificates' keys.
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin gateway && install -d -m 1777 /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GATEWAY_CONFIG=/etc/gateway/config.toml
WORKDIR /var/lib/gateway
USER gateway
EXPOSE 11112 2762
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["python", "-c", "import httpx; httpx.Client(transport=httpx.HTTPTransport(uds='/var/lib/gateway/state/control.sock'), timeout=5).get('http://gateway/health').raise_for_status()"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
