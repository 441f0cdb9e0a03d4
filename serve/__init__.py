"""A unified model at people's and programs' service: a web demo, and an HTTP server in OpenAI's shapes."""
