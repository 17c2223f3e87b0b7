"""What PyPI's clients do with our images; runs in their own environment: WHAT HOST:PORT/REPOSITORY:TAG FOLDER.

Refuses nothing: what a client refuses ends this with its own traceback."""

import sys


def oras(reference: str, folder: str) -> None:
    """Pull with oras, as anyone would pull an artifact."""
    import oras.client

    client = oras.client.OrasClient(hostname=reference.partition("/")[0], insecure=True)
    client.pull(target=reference, outdir=folder)


def modelpack(reference: str, folder: str) -> None:
    """Pull with a client that holds manifest and config to the ModelPack specification and its schema."""
    from modelpack_client import ModelPackClient

    ModelPackClient(insecure=True).pull(reference, folder)


if __name__ == "__main__":
    {"oras": oras, "modelpack": modelpack}[sys.argv[1]](*sys.argv[2:])
