"""What the machine under the models feels: its load, temperatures, throttling, memory, disk, power and GPUs.

Refuses nothing: what this machine cannot tell, or tells wrongly, is left out, and nothing here raises."""

from edgekit_runtime.machine.reader import Reader
from edgekit_runtime.machine.values import Gpu, Machine, families, to_json

__all__ = ["Gpu", "Machine", "Reader", "families", "to_json"]
