"""Adds prepaid edge workers to Alibaba Cloud ACK Edge clusters when load needs them."""

__version__ = "0.1.0"
