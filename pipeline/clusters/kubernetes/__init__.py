"""Kubernetes: a driver job, a deployment of workers, and the API that starts and ends them."""
