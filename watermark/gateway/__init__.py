"""A gateway in front of any OpenAI-compatible server: for a share of requests it draws twins and serves one."""
