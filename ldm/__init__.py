"""Text-to-image latent diffusion from a few parts that compose.

Importing this package does nothing but define names: no network, no CUDA, no optional package.
"""

__version__ = "0.1.0"
