"""The texts that come with gguf-golf, for whoever names none: one to calibrate on, another one to measure on.

Wikipedia articles (CC BY-SA 3.0, data/demo/LICENSE.md), English only. A text of the kind that the model is used for is
better; calibrating and measuring on the same text is worse than either.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
CALIBRATION = DATA / "demo" / "calibration.txt"
EVALUATION = DATA / "demo" / "demo.txt"
