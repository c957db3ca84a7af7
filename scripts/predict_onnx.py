"""Top classes of images by an exported ONNX file, without MindSpore: `python predict_onnx.py MODEL.onnx IMAGES...`

Needs numpy, Pillow and onnxruntime; copy it to where the file goes. (Bilinear and bicubic as OpenCV: no antialiasing.)
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = json.loads(session.get_modelmeta().custom_metadata_map["ghostnet"])
steps = facts["preprocessing"]
resample = Image.Resampling.BICUBIC if steps["interpolation"] == "bicubic" else Image.Resampling.BILINEAR
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB").convert(steps["color"])
    # The smallest size that covers `resize`, then the crop in its middle.
    scale = max(wanted / have for wanted, have in zip(steps["resize"], image.size[::-1], strict=True))
    size = tuple(int(side * scale + 1e-6) for side in image.size)
    image = image.transform(size, Image.Transform.EXTENT, (0, 0, *image.size), resample)
    height, width = steps["center_crop"]
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.float32(image.crop((left, top, left + width, top + height))).reshape(height, width, -1)
    inputs = ((pixels - np.float32(steps["mean"])) / np.float32(steps["std"])).transpose(2, 0, 1)
    logits = session.run(None, {"image": inputs[np.newaxis]})[0][0]
    print(path, *(facts["classes"][label] for label in np.argsort(-logits)[:5]), sep="\t")
